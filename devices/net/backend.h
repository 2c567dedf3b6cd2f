#ifndef CUBE_DEVICES_NET_BACKEND_H_
#define CUBE_DEVICES_NET_BACKEND_H_

#include <cstdint>

#include "base/result.h"

namespace cube::devices::net {

// The host's end of a NIC: a non-blocking descriptor from which each read takes, and to which each
// write gives, one frame with a Header before it.
class Backend {
 public:
  virtual ~Backend() = default;
  // Open as long as this is; -1 if there is no network at all.
  virtual int fd() const = 0;
  virtual bool link_up() const { return fd() >= 0; }
  // Which of the checksum and segmentation features (GUEST_* and HOST_*, CSUM) it can serve.
  virtual uint64_t offloads() const = 0;
  // What it may hand over from now on: the GUEST_* features among `features`. Any thread.
  virtual Status SetOffloads(uint64_t features) = 0;
};

}  // namespace cube::devices::net

#endif  // CUBE_DEVICES_NET_BACKEND_H_
