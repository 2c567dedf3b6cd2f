#ifndef CUBE_TEMPLATES_TESTING_TAR_WRITER_H_
#define CUBE_TEMPLATES_TESTING_TAR_WRITER_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>

namespace cube::templates::testing {

// One entry of an archive, as wrong as wanted.
struct TarEntry {
  std::string path;
  char type =
      '0';  // '0' file, '1' hard link, '2' symbolic link, '3' '4' devices, '5' folder, '6' FIFO
  std::string content;
  std::string target;
  unsigned mode = 0644;
  uint64_t uid = 0, gid = 0;
  int64_t time = 1'600'000'000;
  unsigned major = 0, minor = 0;
  std::map<std::string, std::string> pax;  // records of an extended header before it
};

// The bytes of a tar (POSIX.1-2001, pax), an entry after the other.
class TarWriter {
 public:
  TarWriter& Add(const TarEntry& entry);
  TarWriter& Folder(const std::string& path, unsigned mode = 0755);
  TarWriter& File(const std::string& path, const std::string& content, unsigned mode = 0644);
  TarWriter& Link(const std::string& path, const std::string& target);
  TarWriter& HardLink(const std::string& path, const std::string& target);
  // With the zeros that end it.
  std::string Finish() const;

 private:
  void AddHeader(const TarEntry& entry, uint64_t size);
  void AddContent(const std::string& content);

  std::string bytes_;
};

std::string Gzip(const std::string& bytes);
std::string Sha256Of(const std::string& bytes);

// An OCI image layout in the folder `path`, with these layers, each a tar, and this "config" of its
// configuration. `compress` for gzip.
void WriteOciLayout(const std::string& path, const std::map<int, std::string>& layers,
                    const std::string& config, bool compress);
// What `docker save` writes: a tar with manifest.json, the configuration and the layers.
std::string DockerArchive(const std::map<int, std::string>& layers, const std::string& config,
                          const std::string& tag);
void WriteFile(const std::string& path, const std::string& content);

}  // namespace cube::templates::testing

#endif  // CUBE_TEMPLATES_TESTING_TAR_WRITER_H_
