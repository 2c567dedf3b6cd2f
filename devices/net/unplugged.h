#ifndef CUBE_DEVICES_NET_UNPLUGGED_H_
#define CUBE_DEVICES_NET_UNPLUGGED_H_

#include "devices/net/backend.h"
#include "devices/net/spec.h"

namespace cube::devices::net {

// No network: a NIC whose link is down. It can serve whatever a driver has negotiated elsewhere.
class Unplugged : public Backend {
 public:
  int fd() const override { return -1; }
  uint64_t offloads() const override { return kTcpOffloads | kUdpOffloads; }
  Status SetOffloads(uint64_t) override { return OkStatus(); }
};

}  // namespace cube::devices::net

#endif  // CUBE_DEVICES_NET_UNPLUGGED_H_
