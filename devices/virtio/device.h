#ifndef CUBE_DEVICES_VIRTIO_DEVICE_H_
#define CUBE_DEVICES_VIRTIO_DEVICE_H_

#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/state_io.h"
#include "devices/virtio/queue.h"
#include "vmm/guest_memory.h"

namespace cube::devices::virtio {

// What a transport does for its device. Valid from Device::Attach() on; under the device's lock.
class DeviceHost {
 public:
  virtual ~DeviceHost() = default;
  virtual Virtqueue& queue(uint32_t index) = 0;
  virtual const vmm::GuestMemory& memory() const = 0;
  // Has ProcessQueue() called again once the event loop has seen to others: a driver that always
  // has more to do must not keep the loop for itself.
  virtual void ProcessLater(uint32_t index) = 0;
  // The configuration space has changed (2.5): the driver is told.
  virtual void ConfigChanged() = 0;
  // The driver broke the contract, or the device cannot go on: DEVICE_NEEDS_RESET (2.1.1). Queues
  // are not processed until the driver has reset the device.
  virtual void Fail(const Error& error) = 0;
};

// A virtio device without its transport: queues, configuration and what they mean.
//
// Everything below but mutex() is called with mutex() held: register accesses on vCPU threads,
// ProcessQueue(), Quiesce(), Save() and Load() on the event loop's. A device's own handlers on the
// event loop take the lock themselves.
class Device {
 public:
  virtual ~Device() = default;

  // Type (section 5), the features offered beside those of rings and transport, and the size of
  // each queue. Constant.
  virtual uint32_t id() const = 0;
  virtual uint64_t features() const = 0;
  virtual std::vector<uint16_t> queue_sizes() const = 0;

  // Bytes of the configuration space; what is not there reads as zero.
  virtual void ReadConfig(uint32_t offset, std::span<uint8_t> out) = 0;
  // False if the driver may not write there.
  virtual bool WriteConfig(uint32_t, std::span<const uint8_t>) { return false; }

  // The driver is ready, or the device was restored in that state: queues may be used.
  virtual void Activate(uint64_t features) = 0;
  // As it was before Activate(). When this returns nothing touches guest memory any more, and
  // chains that are out have been abandoned.
  virtual void Reset() = 0;
  // The driver may have made chains available on a queue.
  virtual void ProcessQueue(uint32_t index) = 0;

  // Finishes or gives back every request under way, and waits for it: afterwards no chain is out
  // and guest memory is not touched until Resume() or the next ProcessQueue(). vCPUs are stopped.
  virtual void Quiesce() {}
  // Goes on after Quiesce(), or after Load() in a new process: host descriptors are watched again.
  virtual void Resume() {}
  // The device's own state, between two requests. The version goes up when its form changes.
  virtual uint32_t state_version() const = 0;
  virtual Status Save(StateWriter* state) = 0;
  // Checks everything before it changes anything. After Activate(), if the saved device was active.
  virtual Status Load(StateReader* state) = 0;

  // Calls `count` with each counter's name and value.
  using Count = std::function<void(const char* name, uint64_t value)>;
  virtual void Metrics(const Count&) const {}

  // Once, before anything else.
  void Attach(DeviceHost* host) { host_ = host; }
  std::mutex& mutex() { return mutex_; }

 protected:
  DeviceHost& host() { return *host_; }
  const DeviceHost& host() const { return *host_; }

 private:
  DeviceHost* host_ = nullptr;
  std::mutex mutex_;
};

// For ReadConfig(): bytes of a structure that holds the configuration space.
template <typename T>
void ReadConfigFrom(const T& config, uint32_t offset, std::span<uint8_t> out) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto* bytes = reinterpret_cast<const uint8_t*>(&config);
  for (size_t i = 0; i < out.size(); ++i) {
    uint64_t at = uint64_t{offset} + i;
    out[i] = at < sizeof config ? bytes[at] : 0;
  }
}

}  // namespace cube::devices::virtio

#endif  // CUBE_DEVICES_VIRTIO_DEVICE_H_
