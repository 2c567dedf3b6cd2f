#ifndef CUBE_DEVICES_VIRTIO_MMIO_TRANSPORT_H_
#define CUBE_DEVICES_VIRTIO_MMIO_TRANSPORT_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/state_io.h"
#include "base/unique_fd.h"
#include "devices/virtio/device.h"
#include "devices/virtio/queue.h"
#include "vmm/bus.h"
#include "vmm/event_loop.h"
#include "vmm/guest_memory.h"
#include "vmm/irq_line.h"

namespace cube::devices::virtio {

// A device behind the registers of virtio over MMIO, version 2 (virtio 1.2 section 4.2). Registers
// are accessed on vCPU threads, queues processed on the event loop's: a notification only adds to a
// queue's eventfd, which KVM can do without leaving the kernel (KVM_IOEVENTFD).
class MmioTransport : public vmm::BusDevice, private QueueOwner, private DeviceHost {
 public:
  static constexpr uint64_t kSize = 0x1000;

  // `memory` and `loop` outlive the transport; destroyed on the loop's thread, or once it has
  // ended.
  static Result<std::unique_ptr<MmioTransport>> Create(std::string name,
                                                       std::unique_ptr<Device> device,
                                                       const vmm::GuestMemory* memory,
                                                       vmm::EventLoop* loop, vmm::IrqLine irq);
  ~MmioTransport() override;

  void Read(uint64_t offset, std::span<uint8_t> data) override;
  void Write(uint64_t offset, std::span<const uint8_t> data) override;

  const std::string& name() const { return name_; }
  Device& device() { return *device_; }
  const vmm::IrqLine& irq() const { return irq_; }
  uint32_t queue_count() const { return static_cast<uint32_t>(queues_.size()); }
  // Where a notification of a queue goes; for KVM_IOEVENTFD at kMmioQueueNotify.
  int kick_fd(uint32_t queue) const { return kicks_[queue].get(); }

  // ---- saved state; on the event loop's thread, vCPUs stopped

  // Finishes what is under way, so that Save() finds the device between two requests.
  void Quiesce();
  // Goes on, after Quiesce() or Restore().
  void Resume();
  Status Save(StateWriter* state);
  // As a driver does by its status register; pending notifications are dropped as well.
  void Reset();
  // Into a transport just made or reset, of a device of the same kind: checks features, queues and their
  // addresses against it first.
  Status Restore(StateReader* state);

  // Of transport and device.
  void Metrics(const Device::Count& count);
  // Why the device needs a reset; empty if it does not. Any thread.
  std::string failure();

 private:
  MmioTransport(std::string name, std::unique_ptr<Device> device, const vmm::GuestMemory* memory,
                vmm::EventLoop* loop, vmm::IrqLine irq);
  Status WatchKicks();
  void OnKick(uint32_t queue);

  // The rest is under the device's lock.
  uint32_t ReadRegister(uint32_t offset);
  void WriteRegister(uint32_t offset, uint32_t value);
  void WriteStatus(uint32_t value);
  void WriteQueueRegister(uint32_t offset, uint32_t value);
  void SetQueueReady(uint32_t value);
  void ResetDevice();
  void DriverError() { ++driver_errors_; }
  uint64_t OfferedFeatures() const;
  bool Activated() const { return (status_ & kStatusDriverOk) != 0; }
  // Activated, and the driver has not broken it.
  bool Active() const {
    return (status_ & (kStatusDriverOk | kStatusNeedsReset)) == kStatusDriverOk;
  }

  // QueueOwner, DeviceHost
  void QueueUsed() override;
  void QueueFailed(const Error& error) override { Fail(error); }
  Virtqueue& queue(uint32_t index) override { return queues_[index]; }
  const vmm::GuestMemory& memory() const override { return *memory_; }
  void ProcessLater(uint32_t index) override { SignalEventFd(kicks_[index].get()); }
  void ConfigChanged() override;
  void Fail(const Error& error) override;

  std::string name_;
  std::unique_ptr<Device> device_;
  const vmm::GuestMemory* memory_;
  vmm::EventLoop* loop_;
  vmm::IrqLine irq_;

  std::vector<Virtqueue> queues_;
  std::vector<UniqueFd> kicks_;
  std::vector<QueueLayout> layouts_;  // as the driver has written them
  uint32_t status_ = 0;
  uint64_t driver_features_ = 0;
  uint32_t device_features_select_ = 0;
  uint32_t driver_features_select_ = 0;
  uint32_t queue_select_ = 0;
  uint32_t config_generation_ = 0;
  // Read and acknowledged at every interrupt: without the lock, which a device may hold for long.
  std::atomic<uint32_t> interrupt_status_{0};
  std::string failure_;
  uint64_t driver_errors_ = 0;
  std::atomic<uint64_t> interrupts_{0};
  uint64_t kicks_taken_ = 0;
};

}  // namespace cube::devices::virtio

#endif  // CUBE_DEVICES_VIRTIO_MMIO_TRANSPORT_H_
