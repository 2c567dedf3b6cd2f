#include "vmm/cli/output_sink.h"

#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace cube::vmm {

OutputSink::OutputSink(int fd) : fd_(fd), kind_(Kind::kFile) {
  struct stat st = {};
  if (fstat(fd, &st) < 0) {
    closed_ = true;
  } else if (S_ISSOCK(st.st_mode)) {
    kind_ = Kind::kSocket;
  } else if (S_ISFIFO(st.st_mode) || isatty(fd) != 0) {
    kind_ = Kind::kPipe;
  }
}

size_t OutputSink::Write(std::span<const uint8_t> bytes) {
  size_t done = 0;
  while (done < bytes.size() && !closed_) {
    auto rest = bytes.subspan(done);
    ssize_t n;
    if (kind_ == Kind::kSocket) {
      n = send(fd_, rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
      if (kind_ == Kind::kPipe) {
        // A writable pipe takes PIPE_BUF bytes at once without blocking (pipe(7)).
        pollfd ready = {fd_, POLLOUT, 0};
        if (poll(&ready, 1, 0) <= 0) break;
        rest = rest.first(std::min<size_t>(rest.size(), PIPE_BUF));
      }
      n = write(fd_, rest.data(), rest.size());
    }
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n < 0) {
      closed_ = true;
      break;
    }
    done += static_cast<size_t>(n);
  }
  return done;
}

}  // namespace cube::vmm
