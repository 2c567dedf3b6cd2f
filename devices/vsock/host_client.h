#ifndef CUBE_DEVICES_VSOCK_HOST_CLIENT_H_
#define CUBE_DEVICES_VSOCK_HOST_CLIENT_H_

#include <cstdint>
#include <string>
#include <utility>

#include "base/unique_fd.h"

namespace cube::devices::vsock {

// A client of the host's that has yet to say which port of the guest it wants, by one line
// "CONNECT <port>\n".
class HostClient {
 public:
  enum class Progress { kMore, kPort, kBad };

  // The longest line, "CONNECT 4294967295\n", with room for a carriage return.
  static constexpr size_t kMaxLine = 20;

  HostClient(UniqueFd fd, uint64_t deadline) : fd_(std::move(fd)), deadline_(deadline) {}

  // Reads what is there, but nothing beyond the line. kPort once it is there: see port(). kBad if
  // it is something else, or the client is gone.
  Progress Read();
  uint32_t port() const { return port_; }
  UniqueFd TakeFd() { return std::move(fd_); }
  int fd() const { return fd_.get(); }

  uint64_t deadline() const { return deadline_; }
  void Postpone(uint64_t nanoseconds) { deadline_ += nanoseconds; }

 private:
  UniqueFd fd_;
  uint64_t deadline_;  // CLOCK_MONOTONIC nanoseconds
  std::string line_;
  uint32_t port_ = 0;
};

}  // namespace cube::devices::vsock

#endif  // CUBE_DEVICES_VSOCK_HOST_CLIENT_H_
