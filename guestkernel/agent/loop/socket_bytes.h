#ifndef CUBE_GUESTKERNEL_AGENT_LOOP_SOCKET_BYTES_H_
#define CUBE_GUESTKERNEL_AGENT_LOOP_SOCKET_BYTES_H_

#include <sys/socket.h>

#include <string>
#include <string_view>

#include "base/unique_fd.h"

// For tests: bytes through a socket that waits.
namespace cube {

// False if the other side takes no more.
inline bool SendAll(const UniqueFd& fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

// So many bytes, fewer at the end.
inline std::string ReceiveBytes(const UniqueFd& fd, size_t size) {
  std::string bytes(size, '\0');
  size_t got = 0;
  while (got < size) {
    const ssize_t n = recv(fd.get(), bytes.data() + got, size - got, 0);
    if (n <= 0) break;
    got += static_cast<size_t>(n);
  }
  bytes.resize(got);
  return bytes;
}

}  // namespace cube

#endif  // CUBE_GUESTKERNEL_AGENT_LOOP_SOCKET_BYTES_H_
