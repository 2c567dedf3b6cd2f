#include "devices/net/receiver.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "devices/net/frame_header.h"

namespace cube::devices::net {

void Receiver::Start(uint64_t features, uint32_t mtu) {
  constexpr uint64_t kLong =
      kFeatureGuestTso4 | kFeatureGuestTso6 | kFeatureGuestUso4 | kFeatureGuestUso6;
  features_ = features;
  mergeable_ = (features & kFeatureMergeableBuffers) != 0;
  needed_ = sizeof(Header) + ((features & kLong) != 0 ? kMaxFrame : mtu + kMaxFrameOverhead);
  make_do_ = false;
}

bool Receiver::Enough() const {
  if (!mergeable_) return count_ == 1;
  return capacity_ >= needed_ || iovec_count() >= kMaxIovecs || count_ == kQueueSize;
}

void Receiver::Fill(virtio::Virtqueue& queue) {
  if (first_iovec_ == iovecs_.size()) {
    iovecs_.clear();
    first_iovec_ = 0;
  } else if (first_iovec_ >= kMaxIovecs) {
    iovecs_.erase(iovecs_.begin(), iovecs_.begin() + static_cast<ptrdiff_t>(first_iovec_));
    first_iovec_ = 0;
  }
  for (int taken = 0; !Enough() && taken < kQueueSize; ++taken) {
    Slot& slot = At(count_);
    if (!queue.Pop(&slot.chain)) return;
    if (slot.chain.writable_size() < sizeof(Header)) {
      ++bad_buffers_;
      queue.Push(&slot.chain, 0);
      continue;
    }
    size_t before = iovecs_.size();
    slot.capacity = static_cast<uint32_t>(slot.chain.WritableIovecs(0, kMaxChain, &iovecs_));
    slot.iovecs = iovecs_.size() - before;
    capacity_ += slot.capacity;
    ++count_;
  }
}

Stopped Receiver::Run(virtio::Virtqueue& queue, int fd, RateLimiter& limiter, bool kicked) {
  queue.DisableKicks();
  for (int frame = 0; frame < kMaxBatch;) {
    Fill(queue);
    bool enough = Enough();
    if (enough) {
      make_do_ = false;
    } else if (kicked) {
      make_do_ = true;
    }
    kicked = false;
    if (count_ == 0 || (!enough && !make_do_)) {
      queue.Notify();
      // More has come meanwhile, or the driver will say so.
      if (queue.EnableKicks()) {
        queue.DisableKicks();
        kicked = true;
        ++frame;  // a driver that only ever adds buffers of no use gets no further than a batch
        continue;
      }
      ++no_buffers_;
      return Stopped::kBlocked;
    }
    if (!limiter.Ready()) {
      queue.Notify();
      return Stopped::kLimited;
    }
    Outcome outcome = Read(queue, fd, limiter);
    if (outcome != Outcome::kDone) {
      queue.Notify();
      return outcome == Outcome::kGone ? Stopped::kGone : Stopped::kIdle;
    }
    ++frame;
  }
  queue.Notify();
  return Stopped::kBatch;
}

Receiver::Outcome Receiver::Read(virtio::Virtqueue& queue, int fd, RateLimiter& limiter) {
  // One byte more than there is room for tells a frame that fits from one that was cut.
  uint8_t beyond;
  iovecs_.push_back({&beyond, sizeof beyond});
  ssize_t got = readv(fd, iovecs_.data() + first_iovec_, static_cast<int>(iovec_count()));
  iovecs_.pop_back();
  if (got < 0) {
    if (errno == EAGAIN) return Outcome::kEmpty;
    if (errno == EBADFD || errno == EIO) return Outcome::kGone;  // the interface was deleted
    ++errors_;
    return Outcome::kDone;
  }
  if (got == 0) return Outcome::kGone;
  auto size = static_cast<uint64_t>(got);
  if (size > capacity_) {
    ++too_long_;
  } else if (size < sizeof(Header) + kEthernetHeader) {
    ++errors_;
  } else if (!Deliver(queue, static_cast<uint32_t>(size))) {
    ++unexpected_;
  } else {
    ++frames_;
    if (size > sizeof(Header) + kMaxEthernetFrame) ++large_;
    bytes_ += size - sizeof(Header);
    limiter.Charge(size - sizeof(Header));
  }
  return Outcome::kDone;
}

// Hands the chains that a frame of `size` bytes, header included, lies in to the driver. False,
// with nothing done, if it is not what the driver can take.
bool Receiver::Deliver(virtio::Virtqueue& queue, uint32_t size) {
  Header header;
  CopyFront({reinterpret_cast<uint8_t*>(&header), sizeof header});
  if (!CheckReceive(features_, &header)) return false;
  uint32_t left = size;
  uint16_t chains = 0;
  for (; left > 0; ++chains) left -= std::min(left, At(chains).capacity);
  header.num_buffers = chains;
  At(0).chain.WriteObject(0, header);
  for (left = size; left > 0;) {
    uint32_t written = std::min(left, At(0).capacity);
    queue.Fill(&At(0).chain, written);
    left -= written;
    DropFront();
  }
  // All at once: the driver looks for the others as soon as it sees the first.
  queue.Publish();
  return true;
}

// Reads back what lies at the front of the buffers.
void Receiver::CopyFront(std::span<uint8_t> out) const {
  for (size_t i = first_iovec_; !out.empty(); ++i) {
    size_t piece = std::min(out.size(), iovecs_[i].iov_len);
    memcpy(out.data(), iovecs_[i].iov_base, piece);
    out = out.subspan(piece);
  }
}

void Receiver::DropFront() {
  capacity_ -= At(0).capacity;
  first_iovec_ += At(0).iovecs;
  first_ = (first_ + 1) % kQueueSize;
  --count_;
}

void Receiver::Clear() {
  first_ = count_ = 0;
  capacity_ = 0;
  iovecs_.clear();
  first_iovec_ = 0;
}

void Receiver::GiveBack(virtio::Virtqueue& queue) {
  while (count_ > 0) queue.UndoPop(&At(--count_).chain);
  Clear();
}

void Receiver::Abandon() {
  while (count_ > 0) At(--count_).chain.Abandon();
  Clear();
}

void Receiver::Metrics(const virtio::Device::Count& count) const {
  count("rx_frames", frames_);
  count("rx_large", large_);
  count("rx_bytes", bytes_);
  count("rx_no_buffers", no_buffers_);
  count("rx_bad_buffers", bad_buffers_);
  count("rx_too_long", too_long_);
  count("rx_unexpected", unexpected_);
  count("rx_errors", errors_);
}

}  // namespace cube::devices::net
