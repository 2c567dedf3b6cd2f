#ifndef CUBE_DEVICES_VIRTIO_QUEUE_H_
#define CUBE_DEVICES_VIRTIO_QUEUE_H_

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "devices/virtio/descriptor_chain.h"
#include "devices/virtio/queue_state.h"
#include "devices/virtio/spec.h"
#include "vmm/guest_memory.h"

namespace cube::devices::virtio {

// What a queue tells the transport that owns it.
class QueueOwner {
 public:
  virtual ~QueueOwner() = default;
  // The driver is to be interrupted: buffers were used.
  virtual void QueueUsed() = 0;
  // The driver broke the contract; the queue hands out nothing any more.
  virtual void QueueFailed(const Error& error) = 0;
};

// The device's side of a split virtqueue (virtio 1.2 section 2.7), with indirect descriptors and
// event indices where they were negotiated. Everything the driver wrote is checked before use:
// addresses against guest memory, chains against loops and length, indices against the queue's
// size. Used under its device's lock.
class Virtqueue {
 public:
  // `max_size` is a power of two, at most kMaxQueueSize. `number` names the queue in errors.
  // `memory` and `owner` outlive the queue.
  Virtqueue(const vmm::GuestMemory* memory, QueueOwner* owner, uint32_t number, uint16_t max_size)
      : memory_(memory), owner_(owner), number_(number), max_size_(max_size) {}

  uint16_t max_size() const { return max_size_; }
  bool ready() const { return ready_; }
  // Ready, and the driver has not broken it.
  bool usable() const { return ready_ && !broken_; }

  // ---- for the device

  // The next chain the driver has made available, into `chain`, which must be empty. False if there
  // is none, or the queue is not usable.
  bool Pop(DescriptorChain* chain);
  // Whether Pop() has something to look at.
  bool HasAvailable() const;
  // Takes back the last Pop(): the same chain comes again. Only while no later one is out.
  void UndoPop(DescriptorChain* chain);
  // Returns a chain, of whose writable part the first `written` bytes were written. In any order.
  void Push(DescriptorChain* chain, uint32_t written) {
    Fill(chain, written);
    Publish();
  }
  // The same in two steps, for chains that the driver must find together: it sees what was filled
  // only once it is published.
  void Fill(DescriptorChain* chain, uint32_t written);
  void Publish();
  // Interrupts the driver if it wants to know of what was pushed since the last call.
  void Notify();
  // Asks for no notifications: the device is looking anyway. A hint.
  void DisableKicks();
  // Asks to be notified again. True if something came meanwhile, for which no notification comes.
  bool EnableKicks();
  // Asks to be notified of the next chain the driver adds, whatever is there already and not popped.
  void EnableKicksForMore();
  // How many chains the driver has ever made available, modulo 2^16. Of a queue that is usable.
  uint16_t AvailableIndex() const;
  // Chains popped and not returned.
  uint32_t in_flight() const { return in_flight_; }

  // ---- for the transport

  // Starts the queue where the driver has put it: an error names the address or size at fault.
  Status Enable(const QueueLayout& layout, uint64_t features);
  // Forgets everything. Chains that are out must be abandoned.
  void Reset();

  // The state between two requests; an error while chains are out.
  Result<QueueState> Save() const;
  // Of a queue that was just reset; checked as what the driver writes is.
  Status Restore(const QueueState& state, uint64_t features);

 private:
  struct Walk;

  void Fail(Error error);
  bool Append(const Descriptor& descriptor, DescriptorChain* chain);
  bool WalkChain(uint16_t head, DescriptorChain* chain);
  void SetAvailableEvent(uint16_t value);

  const vmm::GuestMemory* memory_;
  QueueOwner* owner_;
  uint32_t number_;
  uint16_t max_size_;

  bool ready_ = false;
  bool broken_ = false;
  bool event_idx_ = false;
  bool indirect_ = false;
  QueueLayout layout_ = {};
  // The host's views of the three areas, whole; checked by Enable(), and guest memory stays mapped.
  std::span<uint8_t> descriptors_;
  std::span<uint8_t> available_;
  std::span<uint8_t> used_;

  uint16_t next_available_ = 0;
  uint16_t next_used_ = 0;
  uint16_t notified_used_ = 0;  // next_used_ at the last Notify()
  uint16_t in_flight_ = 0;
};

}  // namespace cube::devices::virtio

#endif  // CUBE_DEVICES_VIRTIO_QUEUE_H_
