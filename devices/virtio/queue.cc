#include "devices/virtio/queue.h"

#include <atomic>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

namespace cube::devices::virtio {
namespace {

// A 16-bit field of a ring, which the driver reads or writes at the same time.
std::atomic_ref<uint16_t> Field(std::span<uint8_t> ring, size_t offset) {
  return std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(ring.data() + offset));
}

constexpr size_t kFlags = 0;
constexpr size_t kIndex = 2;

uint64_t AvailableSize(uint32_t size) { return kRingHeaderSize + 2ull * size + kRingEventSize; }
uint64_t UsedSize(uint32_t size) {
  return kRingHeaderSize + sizeof(UsedElement) * uint64_t{size} + kRingEventSize;
}

Descriptor DescriptorAt(std::span<const uint8_t> table, uint32_t index) {
  Descriptor descriptor;
  memcpy(&descriptor, table.data() + sizeof descriptor * index, sizeof descriptor);
  return descriptor;
}

Result<std::span<uint8_t>> Area(const vmm::GuestMemory& memory, const char* name, uint64_t address,
                                uint64_t size, uint32_t alignment) {
  if (address % alignment != 0) {
    return Errorf("%s at %#llx is not aligned to %u", name,
                  static_cast<unsigned long long>(address), alignment);
  }
  auto slice = memory.Slice(address, size);
  if (!slice) {
    return Errorf("%s at %#llx of %llu bytes is not in guest memory", name,
                  static_cast<unsigned long long>(address), static_cast<unsigned long long>(size));
  }
  return *slice;
}

}  // namespace

void Virtqueue::Fail(Error error) {
  if (broken_) return;
  broken_ = true;
  owner_->QueueFailed(std::move(error).Wrap("queue " + std::to_string(number_)));
}

Status Virtqueue::Enable(const QueueLayout& layout, uint64_t features) {
  if (layout.size == 0 || layout.size > max_size_ || (layout.size & (layout.size - 1)) != 0) {
    return Errorf("queue %u: size %u is not a power of two up to %u", number_, layout.size,
                  max_size_);
  }
  CUBE_ASSIGN(descriptors_, Area(*memory_, "descriptor table", layout.descriptors,
                                 sizeof(Descriptor) * uint64_t{layout.size}, kDescriptorAlignment));
  CUBE_ASSIGN(available_, Area(*memory_, "driver area", layout.driver, AvailableSize(layout.size),
                               kAvailAlignment));
  CUBE_ASSIGN(used_,
              Area(*memory_, "device area", layout.device, UsedSize(layout.size), kUsedAlignment));
  layout_ = layout;
  event_idx_ = (features & kFeatureEventIdx) != 0;
  indirect_ = (features & kFeatureIndirectDesc) != 0;
  next_available_ = next_used_ = notified_used_ = in_flight_ = 0;
  broken_ = false;
  ready_ = true;
  return OkStatus();
}

void Virtqueue::Reset() {
  ready_ = broken_ = false;
  layout_ = {};
  descriptors_ = available_ = used_ = {};
  next_available_ = next_used_ = notified_used_ = in_flight_ = 0;
}

uint16_t Virtqueue::AvailableIndex() const {
  // Acquire: the ring's entries and descriptors were written before the index (2.7.13.3).
  return Field(available_, kIndex).load(std::memory_order_acquire);
}

bool Virtqueue::HasAvailable() const { return usable() && AvailableIndex() != next_available_; }

bool Virtqueue::Pop(DescriptorChain* chain) {
  if (chain->valid()) __builtin_trap();
  if (!usable()) return false;
  auto waiting = static_cast<uint16_t>(AvailableIndex() - next_available_);
  if (waiting == 0) return false;
  // Together with what is out, more than there are descriptors: some chain is there twice.
  if (waiting > layout_.size - in_flight_) {
    Fail(Errorf("%u chains available and %u in use, with %u descriptors", waiting, in_flight_,
                layout_.size));
    return false;
  }
  size_t slot = next_available_ & (layout_.size - 1);
  uint16_t head = Field(available_, kRingHeaderSize + 2 * slot).load(std::memory_order_relaxed);
  if (!WalkChain(head, chain)) {
    chain->Clear();
    return false;
  }
  chain->head_ = head;
  ++next_available_;
  ++in_flight_;
  return true;
}

// The one table being walked.
struct Virtqueue::Walk {
  std::span<const uint8_t> table;
  uint32_t size;  // descriptors in it
};

bool Virtqueue::WalkChain(uint16_t head, DescriptorChain* chain) {
  Walk walk = {descriptors_, layout_.size};
  bool in_indirect = false;
  uint32_t index = head;
  // A chain is never longer than the queue (2.7.5.3.1), which also ends a loop.
  for (uint32_t count = 0;;) {
    if (index >= walk.size) {
      Fail(Errorf("descriptor %u of %u", index, walk.size));
      return false;
    }
    Descriptor descriptor = DescriptorAt(walk.table, index);
    if ((descriptor.flags & kDescriptorIndirect) != 0) {
      if (!indirect_ || in_indirect || (descriptor.flags & kDescriptorNext) != 0) {
        Fail(Errorf("descriptor %u is indirect where none may be (flags %#x)", index,
                    descriptor.flags));
        return false;
      }
      uint32_t entries = descriptor.length / sizeof(Descriptor);
      auto table = memory_->Slice(descriptor.address, descriptor.length);
      if (entries == 0 || entries > layout_.size || descriptor.length % sizeof(Descriptor) != 0 ||
          !table) {
        Fail(Errorf("indirect table at %#llx of %u bytes",
                    static_cast<unsigned long long>(descriptor.address), descriptor.length));
        return false;
      }
      walk = {*table, entries};
      in_indirect = true;
      index = 0;
      continue;
    }
    if (++count > layout_.size) {
      Fail(Errorf("the chain from descriptor %u is longer than the queue, %u", head, layout_.size));
      return false;
    }
    if (!Append(descriptor, chain)) return false;
    if ((descriptor.flags & kDescriptorNext) == 0) return true;
    index = descriptor.next;
  }
}

bool Virtqueue::Append(const Descriptor& descriptor, DescriptorChain* chain) {
  bool writable = (descriptor.flags & kDescriptorWrite) != 0;
  if (!writable && chain->buffers_.size() > chain->readable_count_) {
    Fail(Errorf("a buffer to read from at %#llx after one to write to",
                static_cast<unsigned long long>(descriptor.address)));
    return false;
  }
  if (descriptor.length == 0) return true;
  auto buffer = memory_->Slice(descriptor.address, descriptor.length);
  if (!buffer) {
    Fail(Errorf("buffer at %#llx of %u bytes is not in guest memory",
                static_cast<unsigned long long>(descriptor.address), descriptor.length));
    return false;
  }
  // 2.7.5.3.1: not more than 2^32 bytes in all.
  uint64_t total = uint64_t{chain->readable_size_} + chain->writable_size_ + descriptor.length;
  if (total > std::numeric_limits<uint32_t>::max()) {
    Fail(Errorf("a chain of more than %u bytes", std::numeric_limits<uint32_t>::max()));
    return false;
  }
  chain->buffers_.push_back(*buffer);
  if (writable) {
    chain->writable_size_ += descriptor.length;
  } else {
    ++chain->readable_count_;
    chain->readable_size_ += descriptor.length;
  }
  return true;
}

void Virtqueue::UndoPop(DescriptorChain* chain) {
  if (!chain->valid()) __builtin_trap();
  --next_available_;
  --in_flight_;
  chain->Clear();
}

void Virtqueue::Fill(DescriptorChain* chain, uint32_t written) {
  if (!chain->valid()) __builtin_trap();
  UsedElement element = {*chain->head_, written};
  chain->Clear();
  --in_flight_;
  size_t slot = next_used_ & (layout_.size - 1);
  memcpy(used_.data() + kRingHeaderSize + sizeof element * slot, &element, sizeof element);
  ++next_used_;
}

void Virtqueue::Publish() {
  // Release: buffers and elements before the index (2.7.14).
  Field(used_, kIndex).store(next_used_, std::memory_order_release);
}

void Virtqueue::Notify() {
  if (!ready_ || next_used_ == notified_used_) return;
  uint16_t before = std::exchange(notified_used_, next_used_);
  // The index must be out before what the driver wants is read (2.7.7.2), or both could miss.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  bool wanted;
  if (event_idx_) {
    uint16_t event =
        Field(available_, kRingHeaderSize + 2ull * layout_.size).load(std::memory_order_relaxed);
    wanted =
        static_cast<uint16_t>(next_used_ - event - 1) < static_cast<uint16_t>(next_used_ - before);
  } else {
    wanted = (Field(available_, kFlags).load(std::memory_order_relaxed) & kAvailNoInterrupt) == 0;
  }
  if (wanted) owner_->QueueUsed();
}

void Virtqueue::SetAvailableEvent(uint16_t value) {
  Field(used_, kRingHeaderSize + sizeof(UsedElement) * size_t{layout_.size})
      .store(value, std::memory_order_relaxed);
}

void Virtqueue::DisableKicks() {
  // With event indices an index that is not moved on asks for nothing more (2.7.10).
  if (!ready_ || event_idx_) return;
  Field(used_, kFlags).store(kUsedNoNotify, std::memory_order_relaxed);
}

bool Virtqueue::EnableKicks() {
  if (!usable()) return false;
  if (event_idx_) {
    SetAvailableEvent(next_available_);
  } else {
    Field(used_, kFlags).store(0, std::memory_order_relaxed);
  }
  // What is asked for must be out before the index is read again.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return AvailableIndex() != next_available_;
}

void Virtqueue::EnableKicksForMore() {
  if (!usable()) return;
  if (event_idx_) {
    SetAvailableEvent(AvailableIndex());
  } else {
    Field(used_, kFlags).store(0, std::memory_order_relaxed);
  }
  // As above.
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

Result<QueueState> Virtqueue::Save() const {
  if (in_flight_ != 0) return Errorf("queue %u has %u requests under way", number_, in_flight_);
  QueueState state = {};
  state.layout = layout_;
  state.ready = ready_ ? 1 : 0;
  state.broken = broken_ ? 1 : 0;
  state.next_available = next_available_;
  state.next_used = next_used_;
  state.notified_used = notified_used_;
  return state;
}

Status Virtqueue::Restore(const QueueState& state, uint64_t features) {
  if (state.ready == 0) {
    layout_ = {};
    return OkStatus();
  }
  CUBE_TRY(Enable(state.layout, features));
  broken_ = state.broken != 0;
  next_available_ = state.next_available;
  next_used_ = state.next_used;
  notified_used_ = state.notified_used;
  return OkStatus();
}

}  // namespace cube::devices::virtio
