#ifndef CUBE_DEVICES_BLK_TESTING_SCRATCH_H_
#define CUBE_DEVICES_BLK_TESTING_SCRATCH_H_

#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace cube::devices::blk::testing {

// A folder for the disk images of a test, which goes with it.
class Scratch {
 public:
  Scratch() {
    const char* folder = getenv("TEST_TMPDIR");
    path_ = std::string(folder != nullptr ? folder : "/tmp") + "/cube-disk-XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) abort();
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string Path(const std::string& name) const { return path_ + "/" + name; }

  // A file with these bytes; returns its path.
  std::string Write(const std::string& name, const std::vector<uint8_t>& bytes) const {
    std::ofstream(Path(name), std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return Path(name);
  }
  std::vector<uint8_t> Read(const std::string& name) const {
    std::ifstream file(Path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  std::string path_;
};

// Bytes that differ from place to place and from seed to seed, and are never zero.
inline std::vector<uint8_t> Pattern(size_t size, uint32_t seed) {
  std::vector<uint8_t> bytes(size);
  uint32_t state = seed * 2654435761u + 1;
  for (uint8_t& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<uint8_t>((state >> 24) | 1);
  }
  return bytes;
}

}  // namespace cube::devices::blk::testing

#endif  // CUBE_DEVICES_BLK_TESTING_SCRATCH_H_
