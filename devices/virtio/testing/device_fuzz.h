#ifndef CUBE_DEVICES_VIRTIO_TESTING_DEVICE_FUZZ_H_
#define CUBE_DEVICES_VIRTIO_TESTING_DEVICE_FUZZ_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "devices/virtio/device.h"
#include "vmm/event_loop.h"

namespace cube::devices::virtio::fake {

// Plays a hostile guest against a device, by the bytes of a fuzzer's input: register accesses of
// any width and offset, descriptors and rings of any content, well-formed requests with fuzzed
// bytes, resets in between, saving and restoring. Ends within a bounded number of steps. `make` is
// called for each new device.
void FuzzDevice(std::span<const uint8_t> input,
                const std::function<std::unique_ptr<Device>(vmm::EventLoop*)>& make);

}  // namespace cube::devices::virtio::fake

#endif  // CUBE_DEVICES_VIRTIO_TESTING_DEVICE_FUZZ_H_
