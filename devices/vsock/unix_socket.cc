#include "devices/vsock/unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace cube::devices::vsock {
namespace {

constexpr int kBacklog = 128;

UniqueFd NewSocket() {
  return UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

sockaddr_un Address(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.data(), std::min(path.size(), MaxUnixPath()));
  return address;
}

// The file at `path` stands in the way: removes it if it is what a process that died has left.
Status RemoveStale(const std::string& path) {
  struct stat file;
  if (lstat(path.c_str(), &file) < 0) {
    if (errno == ENOENT) return OkStatus();  // gone in the meantime
    return ErrnoError("cannot look at %s", path.c_str());
  }
  if (!S_ISSOCK(file.st_mode)) {
    return Errorf("%s exists and is not a socket", path.c_str());
  }
  if (ConnectUnix(path).valid() || errno != ECONNREFUSED) {
    return Errorf("%s is in use by another process", path.c_str());
  }
  if (unlink(path.c_str()) < 0 && errno != ENOENT) {
    return ErrnoError("cannot remove the stale socket %s", path.c_str());
  }
  return OkStatus();
}

}  // namespace

size_t MaxUnixPath() { return sizeof(sockaddr_un{}.sun_path) - 1; }

Result<UnixListener> UnixListener::Bind(const std::string& path) {
  if (path.empty() || path.size() > MaxUnixPath()) {
    return Errorf("socket path of %zu bytes, 1 to %zu are possible", path.size(), MaxUnixPath());
  }
  UnixListener listener;
  listener.fd_ = NewSocket();
  if (!listener.fd_.valid()) return ErrnoError("socket");
  sockaddr_un address = Address(path);
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (bind(listener.fd_.get(), generic, sizeof address) < 0) {
    if (errno != EADDRINUSE) return ErrnoError("cannot bind %s", path.c_str());
    CUBE_TRY(RemoveStale(path));
    if (bind(listener.fd_.get(), generic, sizeof address) < 0) {
      return ErrnoError("cannot bind %s", path.c_str());
    }
  }
  listener.path_ = path;
  struct stat file;
  if (lstat(path.c_str(), &file) < 0) return ErrnoError("cannot look at %s", path.c_str());
  listener.device_ = file.st_dev;
  listener.inode_ = file.st_ino;
  if (listen(listener.fd_.get(), kBacklog) < 0) return ErrnoError("listen on %s", path.c_str());
  return listener;
}

Result<UnixListener> UnixListener::Adopt(UniqueFd fd) {
  int domain = 0, listens = 0;
  socklen_t size = sizeof domain;
  if (getsockopt(fd.get(), SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 || domain != AF_UNIX ||
      getsockopt(fd.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || listens == 0) {
    return Errorf("descriptor %d is not a listening Unix socket", fd.get());
  }
  int flags = fcntl(fd.get(), F_GETFL);
  if (flags < 0 || fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) < 0) return ErrnoError("fcntl");
  UnixListener listener;
  listener.fd_ = std::move(fd);
  return listener;
}

UnixListener& UnixListener::operator=(UnixListener&& other) noexcept {
  if (this == &other) return *this;
  Unlink();
  fd_ = std::move(other.fd_);
  path_ = std::move(other.path_);
  other.path_.clear();
  device_ = other.device_;
  inode_ = other.inode_;
  return *this;
}

void UnixListener::Unlink() {
  if (path_.empty()) return;
  // Somebody may have put another in its place.
  struct stat file;
  if (lstat(path_.c_str(), &file) == 0 && file.st_dev == device_ && file.st_ino == inode_) {
    unlink(path_.c_str());
  }
  path_.clear();
}

UniqueFd ConnectUnix(const std::string& path) {
  if (path.empty() || path.size() > MaxUnixPath()) {
    errno = ENAMETOOLONG;
    return UniqueFd();
  }
  UniqueFd fd = NewSocket();
  if (!fd.valid()) return fd;
  sockaddr_un address = Address(path);
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
    int reason = errno;
    fd.Reset();
    errno = reason;
  }
  return fd;
}

}  // namespace cube::devices::vsock
