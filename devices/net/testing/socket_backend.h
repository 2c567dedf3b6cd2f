#ifndef CUBE_DEVICES_NET_TESTING_SOCKET_BACKEND_H_
#define CUBE_DEVICES_NET_TESTING_SOCKET_BACKEND_H_

#include <cstdint>

#include "base/unique_fd.h"
#include "devices/net/backend.h"

namespace cube::devices::net::testing {

// One end of a pair of datagram sockets as a backend: what a TAP does, frame by frame, but with a
// peer that can be full, silent or gone at will, and that says nothing about what is in the frames.
class SocketBackend : public Backend {
 public:
  // Non-blocking. `offloads` as Backend has them.
  SocketBackend(UniqueFd fd, uint64_t offloads) : fd_(std::move(fd)), offloads_(offloads) {}

  int fd() const override { return fd_.get(); }
  uint64_t offloads() const override { return offloads_; }
  Status SetOffloads(uint64_t features) override {
    if (refuse) return Errorf("the backend does not take the offloads");
    set = features;
    return OkStatus();
  }

  uint64_t set = 0;
  bool refuse = false;

 private:
  UniqueFd fd_;
  uint64_t offloads_;
};

}  // namespace cube::devices::net::testing

#endif  // CUBE_DEVICES_NET_TESTING_SOCKET_BACKEND_H_
