#include "snapshot/verified_stamp.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/byte_io.h"
#include "base/unique_fd.h"

namespace cube::snapshot {
namespace {

std::string Text(const struct stat& info) {
  return Format("%llu:%llu:%lld:%lld.%09ld:%lld.%09ld\n",
                static_cast<unsigned long long>(info.st_dev),
                static_cast<unsigned long long>(info.st_ino), static_cast<long long>(info.st_size),
                static_cast<long long>(info.st_mtim.tv_sec), info.st_mtim.tv_nsec,
                static_cast<long long>(info.st_ctim.tv_sec), info.st_ctim.tv_nsec);
}

}  // namespace

bool IsStamped(const std::string& path, const struct stat& info) {
  auto file = OpenFile(path + ".verified", O_RDONLY | O_NONBLOCK);
  if (!file.ok()) return false;
  std::string wanted = Text(info);
  std::string found(wanted.size() + 1, '\0');
  ssize_t n = read(file->get(), found.data(), found.size());
  return n == static_cast<ssize_t>(wanted.size()) && found.compare(0, wanted.size(), wanted) == 0;
}

Status Stamp(const std::string& path, const struct stat& info) {
  std::string text = Text(info);
  // Not through a link to somebody's file.
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK;
  CUBE_ASSIGN(UniqueFd file, OpenFile(path + ".verified", kFlags, 0644));
  return WriteAll(file.get(), {reinterpret_cast<const uint8_t*>(text.data()), text.size()},
                  "a stamp");
}

}  // namespace cube::snapshot
