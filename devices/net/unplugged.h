#ifndef CUBE_DEVICES_NET_UNPLUGGED_H_
#define CUBE_DEVICES_NET_UNPLUGGED_H_

#include "devices/net/backend.h"
#include "devices/net/spec.h"

namespace cube::devices::net {

// No network: a NIC whose link is down; or, if `awaits`, one whose guest takes it for up, because a
// network is plugged in before it has use for one (Net::Plug()): what it sends until then is lost.
// It can serve whatever a driver has negotiated elsewhere.
class Unplugged : public Backend {
 public:
  explicit Unplugged(bool awaits = false) : awaits_(awaits) {}

  int fd() const override { return -1; }
  bool link_up() const override { return awaits_; }
  uint64_t offloads() const override { return kTcpOffloads | kUdpOffloads; }
  Status SetOffloads(uint64_t) override { return OkStatus(); }

 private:
  bool awaits_;
};

}  // namespace cube::devices::net

#endif  // CUBE_DEVICES_NET_UNPLUGGED_H_
