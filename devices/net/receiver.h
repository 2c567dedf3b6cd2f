#ifndef CUBE_DEVICES_NET_RECEIVER_H_
#define CUBE_DEVICES_NET_RECEIVER_H_

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/net/spec.h"
#include "devices/rate_limiter/rate_limiter.h"
#include "devices/virtio/device.h"
#include "devices/virtio/queue.h"

namespace cube::devices::net {

// Why a Receiver or a Transmitter has stopped.
enum class Stopped {
  kIdle,     // there is nothing to carry
  kBatch,    // there may be more, but others have their turn first
  kBlocked,  // the receiving side has no room: no buffers, or a full backend
  kLimited,  // by the rate limit
  kGone,     // the backend does not exist any more
};

// The way from the backend to the guest. Frames are read straight into the guest's buffers: chains
// are taken from the queue ahead, as many as the longest frame may need, and kept for the next
// frame if this one was shorter. With mergeable buffers a frame takes as many of them as it needs
// (5.1.6.3), else exactly one. Under the device's lock.
class Receiver {
 public:
  static constexpr uint16_t kQueueSize = 256;
  // Frames taken in one turn on the event loop.
  static constexpr int kMaxBatch = 64;

  // With these features, for a network of this MTU.
  void Start(uint64_t features, uint32_t mtu);
  // Carries frames from `fd`. `kicked` says that the driver has been heard from: a frame that the
  // buffers have no room for waits once for more of them, then it is dropped.
  Stopped Run(virtio::Virtqueue& queue, int fd, RateLimiter& limiter, bool kicked);
  // Gives back all chains, to come again.
  void GiveBack(virtio::Virtqueue& queue);
  // Forgets all chains: the queue is being reset.
  void Abandon();

  void Metrics(const virtio::Device::Count& count) const;

 private:
  struct Slot {
    virtio::DescriptorChain chain;
    uint32_t capacity = 0;
    size_t iovecs = 0;
  };
  enum class Outcome { kDone, kEmpty, kGone };

  // How much of one chain is used, at most.
  static constexpr uint32_t kMaxChain = 1 << 17;
  // Buffers kept ahead at most, so that with those of one more chain they fit into one readv(2).
  static constexpr size_t kMaxIovecs = 512;

  Slot& At(size_t i) { return slots_[(first_ + i) % kQueueSize]; }
  size_t iovec_count() const { return iovecs_.size() - first_iovec_; }
  bool Enough() const;
  void Fill(virtio::Virtqueue& queue);
  void CopyFront(std::span<uint8_t> out) const;
  void DropFront();
  void Clear();
  Outcome Read(virtio::Virtqueue& queue, int fd, RateLimiter& limiter);
  bool Deliver(virtio::Virtqueue& queue, uint32_t size);

  uint64_t features_ = 0;
  uint64_t needed_ = 0;  // bytes for the longest frame with its header
  bool mergeable_ = false;
  // The buffers were too few for the longest frame even when the driver had been heard from.
  bool make_do_ = false;

  // Chains popped ahead, in the order of the queue: a ring, so that they keep their allocations.
  std::array<Slot, kQueueSize> slots_;
  size_t first_ = 0;
  size_t count_ = 0;
  uint64_t capacity_ = 0;
  // Their buffers, from first_iovec_ on.
  std::vector<iovec> iovecs_;
  size_t first_iovec_ = 0;

  uint64_t frames_ = 0;
  uint64_t large_ = 0;  // of them, longer than Ethernet's own: segmented by whom they go to
  uint64_t bytes_ = 0;
  uint64_t no_buffers_ = 0;   // waits for the driver
  uint64_t bad_buffers_ = 0;  // chains without room for a header
  uint64_t too_long_ = 0;     // frames dropped for want of room
  uint64_t unexpected_ = 0;   // frames dropped for an offload not negotiated
  uint64_t errors_ = 0;
};

}  // namespace cube::devices::net

#endif  // CUBE_DEVICES_NET_RECEIVER_H_
