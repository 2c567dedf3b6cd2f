#ifndef CUBE_DEVICES_VIRTIO_TESTING_FAKE_DRIVER_H_
#define CUBE_DEVICES_VIRTIO_TESTING_FAKE_DRIVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mapping.h"
#include "devices/virtio/device.h"
#include "devices/virtio/mmio_transport.h"
#include "vmm/event_loop.h"
#include "vmm/guest_memory.h"

namespace cube::devices::virtio::fake {

// A guest of kMemorySize bytes at kMemoryStart and the driver of one device in it, for unit tests
// and fuzzers: it writes rings and registers as a driver does, or as a hostile one would. The
// device runs on an event loop of the test's, in Pump(). Everything on one thread.
class FakeDriver {
 public:
  static constexpr uint64_t kMemoryStart = 0x100000;
  static constexpr uint64_t kMemorySize = 4 << 20;

  // `make` gets the event loop, for the device's own descriptors.
  explicit FakeDriver(const std::function<std::unique_ptr<Device>(vmm::EventLoop*)>& make);
  ~FakeDriver();

  // ---- registers
  uint32_t Read(uint32_t offset);
  void Write(uint32_t offset, uint32_t value);
  std::vector<uint8_t> ReadConfig(uint32_t offset, size_t size);
  uint32_t status() { return Read(kMmioStatus); }
  uint64_t OfferedFeatures();

  // Reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK. False if the device refuses them.
  bool Negotiate(uint64_t features);
  // Sets up a queue of `size` descriptors, 0 for the most it has, and makes it ready.
  void SetUpQueue(uint32_t queue, uint16_t size = 0);
  void DriverOk();
  // All of it: `features` of the device's own, cut to what is offered, and the rings'.
  void Start(uint64_t features = ~0ull);

  // ---- memory
  // Bytes of guest memory nobody else has, until the next Negotiate().
  uint64_t Allocate(size_t size, size_t alignment = 16);
  uint64_t Allocate(std::span<const uint8_t> bytes);
  std::span<uint8_t> Memory(uint64_t address, size_t size);
  size_t MemoryLeft() const { return kMemoryStart + kMemorySize - next_free_; }

  // ---- queues
  struct Buffer {
    uint64_t address;
    uint32_t size;
    bool writable;
  };
  // Makes a chain available, by an indirect table if `indirect`; returns its head. Descriptors are
  // used again once TakeUsed() returned their chain.
  uint16_t Add(uint32_t queue, const std::vector<Buffer>& buffers, bool indirect = false);
  // Whether there are descriptors for `count` buffers.
  bool CanAdd(uint32_t queue, size_t count) const { return queues_[queue].free.size() >= count; }
  // A chain of one readable buffer with a copy of `out`, if not empty, and writable ones of these
  // sizes; the addresses of the latter go to `in`.
  uint16_t AddRequest(uint32_t queue, std::span<const uint8_t> out,
                      const std::vector<uint32_t>& in_sizes, std::vector<uint64_t>* in);
  // A descriptor or an entry of the available ring as it is, for what no good driver would do.
  void SetDescriptor(uint32_t queue, uint16_t index, const Descriptor& descriptor);
  void SetAvailable(uint32_t queue, uint16_t slot, uint16_t head);
  void PublishAvailable(uint32_t queue, uint16_t index);
  void SetAvailableFlags(uint32_t queue, uint16_t flags);
  void SetUsedEvent(uint32_t queue, uint16_t index);
  void Kick(uint32_t queue) { Write(kMmioQueueNotify, queue); }

  struct Used {
    uint16_t head;
    uint32_t written;
  };
  std::optional<Used> TakeUsed(uint32_t queue);
  // Lets the device work until `done` or until it has been idle for `milliseconds`; true if done.
  bool PumpUntil(const std::function<bool()>& done, int milliseconds = 10000);
  // Lets the device do what it can now.
  void Pump();
  // Pumps until a chain was used, and takes it. Nothing if that takes longer than a test may.
  std::optional<Used> WaitUsed(uint32_t queue);

  // Edges on the interrupt line since the last call.
  uint64_t TakeInterrupts();

  MmioTransport& transport() { return *transport_; }
  Device& device() { return transport_->device(); }
  vmm::EventLoop& loop() { return loop_; }
  const vmm::GuestMemory& memory() const { return memory_; }

  // Saves the device and restores it into a new one of `make`, with the same guest memory.
  Status SaveAndRestore(const std::function<std::unique_ptr<Device>(vmm::EventLoop*)>& make);

 private:
  struct Queue {
    QueueLayout layout;
    uint16_t next_available = 0;
    uint16_t next_used = 0;
    std::vector<uint16_t> free;
    std::vector<std::vector<uint16_t>> chains;  // by head: its descriptors
  };

  void MakeTransport(const std::function<std::unique_ptr<Device>(vmm::EventLoop*)>& make);

  Mapping mapping_;
  vmm::GuestMemory memory_;
  vmm::EventLoop loop_;
  std::unique_ptr<MmioTransport> transport_;
  uint64_t next_free_ = kMemoryStart;
  std::vector<Queue> queues_;
};

}  // namespace cube::devices::virtio::fake

#endif  // CUBE_DEVICES_VIRTIO_TESTING_FAKE_DRIVER_H_
