#ifndef CUBE_DEVICES_VSOCK_UNIX_SOCKET_H_
#define CUBE_DEVICES_VSOCK_UNIX_SOCKET_H_

#include <sys/types.h>

#include <string>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::devices::vsock {

// A listening, non-blocking Unix stream socket and the file by which it is reached, which goes with
// it.
class UnixListener {
 public:
  // Of no file.
  UnixListener() = default;
  // Binds `path`. A socket file that nobody listens to any more is replaced; one in use, and any
  // other file, is an error that names it.
  static Result<UnixListener> Bind(const std::string& path);
  // Takes a socket that already listens; its file, if it has one, is the giver's.
  static Result<UnixListener> Adopt(UniqueFd fd);

  UnixListener(UnixListener&& other) noexcept { *this = std::move(other); }
  UnixListener& operator=(UnixListener&& other) noexcept;
  ~UnixListener() { Unlink(); }

  int fd() const { return fd_.get(); }

 private:
  void Unlink();

  UniqueFd fd_;
  std::string path_;  // empty: not ours to remove
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

// A non-blocking stream connection to the socket at `path`. errno tells why there is none: nobody
// listens, or has room for one more at this moment (EAGAIN).
UniqueFd ConnectUnix(const std::string& path);

// The longest path that can be bound or connected to, in bytes.
size_t MaxUnixPath();

}  // namespace cube::devices::vsock

#endif  // CUBE_DEVICES_VSOCK_UNIX_SOCKET_H_
