#ifndef CUBE_DEVICES_NET_NET_H_
#define CUBE_DEVICES_NET_NET_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "devices/net/backend.h"
#include "devices/net/receiver.h"
#include "devices/net/spec.h"
#include "devices/net/transmitter.h"
#include "devices/rate_limiter/rate_limiter.h"
#include "devices/virtio/device.h"
#include "vmm/event_loop.h"

namespace cube::devices {

using MacAddress = std::array<uint8_t, 6>;

// An address of one's own: locally administered, unicast, the rest random.
Result<MacAddress> RandomMacAddress();

struct NetOptions {
  MacAddress mac = {};
  uint32_t mtu = 0;          // kMinMtu to kMaxMtu; 0: the guest is told none and takes 1500
  bool offloads = true;      // checksums and segmentation are offered, as the backend can
  RateLimits receive = {};   // to the guest
  RateLimits transmit = {};  // from it
};

// A network device (virtio 1.2 section 5.1) with one pair of queues and no control queue
// (docs/devices.md says why). Frames go between the guest's memory and the backend without a copy.
// Backpressure works both ways: the backend is not read while the guest has no buffers, and the
// guest's frames stay in its queue while the backend is full. A backend that goes away is a link
// that goes down.
class Net : public virtio::Device {
 public:
  // `loop` outlives the device, which is made and destroyed on its thread.
  static Result<std::unique_ptr<Net>> Create(std::unique_ptr<net::Backend> backend,
                                             const NetOptions& options, vmm::EventLoop* loop);
  ~Net() override;

  // Has `backend` in the place of the present one; the driver is told if that changes the link. An
  // error, and nothing changed, if it cannot serve what the driver has negotiated.
  Status Plug(std::unique_ptr<net::Backend> backend);

  // No network yet, but a guest that takes its link for up.
  bool awaits_network() const { return backend_->fd() < 0 && backend_->link_up(); }

  uint32_t id() const override { return virtio::kDeviceNet; }
  uint64_t features() const override;
  std::vector<uint16_t> queue_sizes() const override {
    return {net::Receiver::kQueueSize, net::Transmitter::kQueueSize};
  }
  void ReadConfig(uint32_t offset, std::span<uint8_t> out) override {
    virtio::ReadConfigFrom(config_, offset, out);
  }
  void Activate(uint64_t features) override;
  void Reset() override;
  void ProcessQueue(uint32_t index) override;
  void Quiesce() override;
  void Resume() override;
  uint32_t state_version() const override { return 1; }
  Status Save(StateWriter* state) override;
  Status Load(StateReader* state) override;
  void Metrics(const Count& count) const override;

 private:
  Net(std::unique_ptr<net::Backend> backend, const NetOptions& options, vmm::EventLoop* loop);
  Status SetUp(const NetOptions& options);

  bool running() const { return active_ && !quiesced_ && watched_.has_value(); }
  void OnBackend(uint32_t events);
  void Receive(bool kicked);
  void Transmit();
  void Watch();
  void LinkDown();

  std::unique_ptr<net::Backend> backend_;
  vmm::EventLoop* loop_;
  net::Config config_ = {};
  uint64_t offloads_;
  uint64_t negotiated_ = 0;
  net::Receiver receiver_;
  net::Transmitter transmitter_;
  std::unique_ptr<RateLimiter> receive_limiter_;
  std::unique_ptr<RateLimiter> transmit_limiter_;

  bool active_ = false;    // the driver is ready, and the backend serves what was negotiated
  bool quiesced_ = false;  // queues may not be used
  // What the backend is waited for; `watched_` is what the event loop has been told.
  bool want_input_ = false;
  bool want_output_ = false;
  std::optional<uint32_t> watched_;  // nothing once the backend is gone
};

}  // namespace cube::devices

#endif  // CUBE_DEVICES_NET_NET_H_
