#ifndef CUBE_TESTS_GUEST_VSOCK_PATTERN_H_
#define CUBE_TESTS_GUEST_VSOCK_PATTERN_H_

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>

namespace cube::testing {

// The bytes of a long stream from offset `at` on, a multiple of 8: no two words of it are alike.
// `bytes` is a multiple of 8 long.
inline void FillPattern(uint64_t at, std::span<uint8_t> bytes) {
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t word = (at + i + 1) * 0x9e3779b97f4a7c15;
    word ^= word >> 29;
    memcpy(bytes.data() + i, &word, sizeof word);
  }
}

// FNV-1a, 64 bits.
class Checksum {
 public:
  void Add(std::span<const uint8_t> bytes) {
    for (uint8_t byte : bytes) sum_ = (sum_ ^ byte) * 0x100000001b3;
  }
  std::string text() const {
    char text[17];
    snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(sum_));
    return text;
  }

 private:
  uint64_t sum_ = 0xcbf29ce484222325;
};

}  // namespace cube::testing

#endif  // CUBE_TESTS_GUEST_VSOCK_PATTERN_H_
