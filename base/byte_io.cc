#include "base/byte_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace cube {

Status ReadExactAt(int fd, std::span<uint8_t> out, uint64_t offset, const char* what) {
  size_t done = 0;
  while (done < out.size()) {
    ssize_t n = pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("cannot read %s", what);
    if (n == 0) {
      return Errorf("%s ends after %llu bytes, %llu are needed", what,
                    static_cast<unsigned long long>(offset + done),
                    static_cast<unsigned long long>(offset + out.size()));
    }
    done += static_cast<size_t>(n);
  }
  return OkStatus();
}

Status WriteAll(int fd, std::span<const uint8_t> data, const char* what) {
  size_t done = 0;
  while (done < data.size()) {
    ssize_t n = write(fd, data.data() + done, data.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("cannot write %s", what);
    done += static_cast<size_t>(n);
  }
  return OkStatus();
}

Result<std::string> ReadSmallFile(const std::string& path, size_t limit) {
  CUBE_ASSIGN(UniqueFd fd, OpenFile(path, O_RDONLY));
  std::string text(limit, '\0');
  size_t done = 0;
  while (done < limit) {
    ssize_t n = read(fd.get(), text.data() + done, limit - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("cannot read %s", path.c_str());
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  text.resize(done);
  return text;
}

Result<uint64_t> RegularFileSize(int fd, const char* what) {
  struct stat st = {};
  if (fstat(fd, &st) < 0) return ErrnoError("cannot stat %s", what);
  if (!S_ISREG(st.st_mode)) return Errorf("%s is not a regular file", what);
  return static_cast<uint64_t>(st.st_size);
}

}  // namespace cube
