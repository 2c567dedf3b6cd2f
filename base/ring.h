#ifndef CUBE_BASE_RING_H_
#define CUBE_BASE_RING_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "base/control_abi.h"

namespace cube {

// The two ends of a ring of the mailbox (base/control_abi.h). Each end has one owner and is not
// thread-safe. The memory is shared with a peer that may write anything at any time: an end keeps
// its own index to itself and checks the peer's; once the peer's index makes no sense the ring is
// `broken()` and stays so.
class RingEnd {
 public:
  RingEnd(abi::RingHeader* header, uint8_t* data, uint32_t capacity)
      : header_(header), data_(data), capacity_(capacity) {}

  bool broken() const { return broken_; }

 protected:
  // Up to two areas that make up `size` bytes from index `from`, which may wrap.
  std::array<std::span<uint8_t>, 2> Areas(uint32_t from, uint32_t size) const {
    uint32_t start = from & (capacity_ - 1);
    uint32_t first = std::min(size, capacity_ - start);
    return {std::span<uint8_t>(data_ + start, first), std::span<uint8_t>(data_, size - first)};
  }
  // The bytes in the ring, or 0 and broken() if the indices are further apart than its capacity.
  uint32_t Filled(uint32_t produced, uint32_t consumed) {
    uint32_t filled = produced - consumed;
    if (filled > capacity_) broken_ = true;
    return broken_ ? 0 : filled;
  }

  abi::RingHeader* header_;
  uint8_t* data_;
  uint32_t capacity_;
  bool broken_ = false;
};

class RingProducer : public RingEnd {
 public:
  RingProducer(abi::RingHeader* header, uint8_t* data, uint32_t capacity)
      : RingEnd(header, data, capacity),
        produced_(header->produced.load(std::memory_order_relaxed)) {}

  // Bytes that can be written now; 0 if broken.
  uint32_t Free() {
    uint32_t filled = Filled(produced_, header_->consumed.load(std::memory_order_acquire));
    return broken_ ? 0 : capacity_ - filled;
  }
  // Where `size` bytes, at most Free(), are to be written before Publish(size).
  std::array<std::span<uint8_t>, 2> Space(uint32_t size) const { return Areas(produced_, size); }
  void Publish(uint32_t size) {
    produced_ += size;
    header_->produced.store(produced_, std::memory_order_release);
  }
  // Writes as much of `bytes` as fits and publishes it; returns how much that was.
  uint32_t Write(std::span<const uint8_t> bytes) {
    uint32_t size = static_cast<uint32_t>(std::min<size_t>(bytes.size(), Free()));
    auto areas = Space(size);
    std::copy_n(bytes.data(), areas[0].size(), areas[0].data());
    std::copy_n(bytes.data() + areas[0].size(), areas[1].size(), areas[1].data());
    if (size > 0) Publish(size);
    return size;
  }
  // Asks the consumer for a wake-up when it has made space. Free() must be looked at once more
  // after this, in case the consumer was quicker.
  void WaitForSpace() { header_->producer_waits.store(1, std::memory_order_seq_cst); }
  void End() { header_->end_of_stream.store(1, std::memory_order_release); }
  bool ConsumerGone() const { return header_->consumer_gone.load(std::memory_order_acquire) != 0; }

 private:
  uint32_t produced_;
};

class RingConsumer : public RingEnd {
 public:
  RingConsumer(abi::RingHeader* header, uint8_t* data, uint32_t capacity)
      : RingEnd(header, data, capacity),
        consumed_(header->consumed.load(std::memory_order_relaxed)) {}

  // Bytes that can be read now; 0 if broken.
  uint32_t Available() {
    return Filled(header_->produced.load(std::memory_order_acquire), consumed_);
  }
  // The next `size` bytes, at most Available(). The peer can still change them: copy, then check.
  std::array<std::span<uint8_t>, 2> Bytes(uint32_t size) const { return Areas(consumed_, size); }
  // Gives `size` bytes back to the producer. True if the producer waits to be woken.
  bool Release(uint32_t size) {
    consumed_ += size;
    header_->consumed.store(consumed_, std::memory_order_seq_cst);
    return header_->producer_waits.load(std::memory_order_seq_cst) != 0 &&
           header_->producer_waits.exchange(0, std::memory_order_seq_cst) != 0;
  }
  // Reads up to out.size() bytes; returns how many. `wake_producer` as from Release().
  uint32_t Read(std::span<uint8_t> out, bool* wake_producer) {
    uint32_t size = static_cast<uint32_t>(std::min<size_t>(out.size(), Available()));
    auto areas = Bytes(size);
    std::copy_n(areas[0].data(), areas[0].size(), out.data());
    std::copy_n(areas[1].data(), areas[1].size(), out.data() + areas[0].size());
    *wake_producer = size > 0 && Release(size);
    return size;
  }
  // True when the stream has ended and every byte was read.
  bool AtEnd() {
    if (header_->end_of_stream.load(std::memory_order_acquire) == 0) return false;
    return Available() == 0;
  }
  void Leave() { header_->consumer_gone.store(1, std::memory_order_release); }

 private:
  uint32_t consumed_;
};

// The ends of ring `id` of the mailbox at `mailbox`, kMailboxSize bytes aligned to a page.
template <typename End>
End OpenRing(uint8_t* mailbox, abi::RingId id) {
  auto* header = reinterpret_cast<abi::MailboxHeader*>(mailbox);
  uint32_t index = static_cast<uint32_t>(id);
  const abi::RingPlace& place = abi::kRingPlaces[index];
  return End(&header->rings[index], mailbox + place.offset, place.capacity);
}

}  // namespace cube

#endif  // CUBE_BASE_RING_H_
