#ifndef CUBE_DEVICES_NET_TRANSMITTER_H_
#define CUBE_DEVICES_NET_TRANSMITTER_H_

#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "devices/net/receiver.h"
#include "devices/net/spec.h"
#include "devices/rate_limiter/rate_limiter.h"
#include "devices/virtio/device.h"
#include "devices/virtio/queue.h"

namespace cube::devices::net {

// The way from the guest to the backend. Frames are written straight from the guest's buffers; the
// header, and what of a frame says where its checksum is, is copied, checked and written from the
// copy. No chain is out between two calls. Under the
// device's lock.
class Transmitter {
 public:
  static constexpr uint16_t kQueueSize = 256;
  // Frames sent in one turn on the event loop.
  static constexpr int kMaxBatch = 64;

  void Start(uint64_t features) { features_ = features; }
  // Carries frames to `fd`.
  Stopped Run(virtio::Virtqueue& queue, int fd, RateLimiter& limiter);

  void Metrics(const virtio::Device::Count& count) const;

 private:
  enum class Outcome { kSent, kDropped, kFull, kGone };
  Outcome Send(int fd);

  uint64_t features_ = 0;
  virtio::DescriptorChain chain_;
  std::vector<iovec> iovecs_;

  uint64_t frames_ = 0;
  uint64_t large_ = 0;  // of them, longer than Ethernet's own: segmented by whom they go to
  uint64_t bytes_ = 0;
  uint64_t full_ = 0;     // waits for the backend
  uint64_t invalid_ = 0;  // frames dropped: their size, header or offload cannot be
  uint64_t errors_ = 0;   // frames the backend refused
};

}  // namespace cube::devices::net

#endif  // CUBE_DEVICES_NET_TRANSMITTER_H_
