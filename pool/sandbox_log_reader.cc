#include "pool/sandbox_log_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/unique_fd.h"
#include "pool/jail/place.h"

namespace cube::pool {
namespace {

// An inode is used again once its file is gone: with the time of its birth it is one file's.
struct LogFile {
  UniqueFd fd;
  unsigned long long inode = 0, born = 0;
  uint64_t size = 0;
};

LogFile OpenLog(const std::string& path) {
  LogFile file;
  auto fd = OpenNoLinks(path, O_RDONLY | O_NONBLOCK);
  struct statx info;
  constexpr unsigned kWanted = STATX_INO | STATX_SIZE | STATX_BTIME;
  if (!fd.ok() || statx(fd->get(), "", AT_EMPTY_PATH, kWanted, &info) < 0) return file;
  file.fd = std::move(*fd);
  file.inode = info.stx_ino;
  file.born = static_cast<unsigned long long>(info.stx_btime.tv_sec) * 1'000'000'000 +
              info.stx_btime.tv_nsec;
  file.size = info.stx_size;
  return file;
}

}  // namespace

Outcome<LogPiece> ReadSandboxLog(const std::string& path, const std::string& cursor, size_t limit) {
  unsigned long long inode = 0, born = 0, offset = 0;
  int end = 0;
  if (!cursor.empty() &&
      (sscanf(cursor.c_str(), "%llu-%llu:%llu%n", &inode, &born, &offset, &end) != 3 ||
       static_cast<size_t>(end) != cursor.size())) {
    return Refuse(Fault::kInvalid, "\"%.64s\" is not a cursor", cursor.c_str());
  }
  LogFile files[2] = {OpenLog(path + ".1"), OpenLog(path)};
  LogPiece piece;
  size_t first = 0;
  if (inode != 0) {
    while (first < 2 && (files[first].inode != inode || files[first].born != born)) ++first;
    if (first == 2) {
      piece.skipped = true;
      first = 0;
      offset = 0;
    }
  }
  piece.cursor = cursor;
  for (size_t i = first; i < 2 && piece.text.size() < limit; ++i) {
    const LogFile& file = files[i];
    if (file.inode == 0) continue;
    uint64_t from = i == first ? std::min<uint64_t>(offset, file.size) : 0;
    size_t have = piece.text.size();
    size_t wanted = static_cast<size_t>(std::min<uint64_t>(limit - have, file.size - from));
    piece.text.resize(have + wanted);
    ssize_t n = pread(file.fd.get(), piece.text.data() + have, wanted, static_cast<off_t>(from));
    size_t got = n > 0 ? static_cast<size_t>(n) : 0;
    piece.text.resize(have + got);
    piece.cursor = Format("%llu-%llu:%llu", file.inode, file.born,
                          static_cast<unsigned long long>(from + got));
  }
  return piece;
}

}  // namespace cube::pool
