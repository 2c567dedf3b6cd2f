#ifndef CUBE_DEVICES_NET_TAP_H_
#define CUBE_DEVICES_NET_TAP_H_

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/net/backend.h"

namespace cube::devices::net {

// A TAP interface of the host's (Documentation/networking/tuntap.rst of Linux) with headers before
// its frames.
class Tap : public Backend {
 public:
  // What the host's kernel holds of a guest's frames that nobody has taken yet; then the guest
  // waits.
  static constexpr int kSendBuffer = 1 << 20;

  // Attaches to the interface `name`, which is made if the process may do so and there is none.
  static Result<std::unique_ptr<Tap>> Open(const std::string& name);
  // Takes over a descriptor attached to a TAP with IFF_NO_PI and IFF_VNET_HDR.
  static Result<std::unique_ptr<Tap>> Adopt(UniqueFd fd);

  const std::string& name() const { return name_; }
  int fd() const override { return fd_.get(); }
  uint64_t offloads() const override { return offloads_; }
  Status SetOffloads(uint64_t features) override;

 private:
  Tap(UniqueFd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
  Status SetUp();

  UniqueFd fd_;
  std::string name_;
  uint64_t offloads_ = 0;
};

}  // namespace cube::devices::net

#endif  // CUBE_DEVICES_NET_TAP_H_
