#include "devices/virtio/testing/device_fuzz.h"

#include <algorithm>
#include <vector>

#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/testing/fuzz_input.h"

namespace cube::devices::virtio::fake {
namespace {

constexpr int kMaxSteps = 200;

// An address that is most often in guest memory, sometimes at its edge, sometimes anywhere.
uint64_t Address(FuzzInput& input) {
  auto kind = input.Take<uint8_t>();
  auto value = input.Take<uint32_t>();
  if (kind < 200) return FakeDriver::kMemoryStart + value % FakeDriver::kMemorySize;
  if (kind < 230) return FakeDriver::kMemoryStart + FakeDriver::kMemorySize - value % 64;
  return uint64_t{value} << (kind % 32);
}

Descriptor AnyDescriptor(FuzzInput& input, uint16_t queue_size) {
  Descriptor descriptor;
  descriptor.address = Address(input);
  auto length = input.Take<uint32_t>();
  descriptor.length = (length & 1) != 0 ? length : length % 8192;
  descriptor.flags = input.Take<uint8_t>() & 7;
  descriptor.next = input.Take<uint16_t>();
  if (descriptor.next < 0xf000) descriptor.next %= queue_size;
  return descriptor;
}

class Player {
 public:
  Player(FuzzInput input, const std::function<std::unique_ptr<Device>(vmm::EventLoop*)>& make)
      : input_(input), make_(make), driver_(make) {}

  void Play() {
    driver_.Start(input_.Take<uint64_t>() | kFeatureVersion1);
    for (int step = 0; step < kMaxSteps && !input_.empty(); ++step) {
      Step();
      driver_.Pump();
    }
  }

 private:
  uint32_t Queue() { return input_.Take<uint8_t>() % driver_.transport().queue_count(); }

  void Step() {
    switch (input_.Take<uint8_t>() % 10) {
      case 0: {
        uint32_t offset = input_.Take<uint16_t>() % 0x200;
        std::vector<uint8_t> data(size_t{1} << input_.Take<uint8_t>() % 4);
        driver_.transport().Read(offset, data);
        return;
      }
      case 1: {
        uint32_t offset = input_.Take<uint16_t>() % 0x200;
        std::vector<uint8_t> data(size_t{1} << input_.Take<uint8_t>() % 4);
        std::ranges::copy(input_.TakeBytes(data.size()), data.begin());
        driver_.transport().Write(offset, data);
        return;
      }
      case 2: {  // the registers that matter, at their width
        uint32_t offset = input_.Take<uint8_t>() % 0x40 * 4;
        driver_.Write(offset, input_.Take<uint32_t>());
        return;
      }
      case 3:
        driver_.Start(input_.Take<uint64_t>() | kFeatureVersion1);
        return;
      case 4: {  // a ring as nobody would write it
        uint32_t queue = Queue();
        for (uint8_t n = input_.Take<uint8_t>() % 8; n > 0; --n) {
          driver_.SetDescriptor(queue, input_.Take<uint8_t>() % 16, AnyDescriptor(input_, 16));
        }
        driver_.SetAvailable(queue, input_.Take<uint8_t>() % 16, input_.Take<uint8_t>() % 17);
        driver_.PublishAvailable(queue, input_.Take<uint8_t>());
        driver_.Kick(queue);
        return;
      }
      case 5: {
        driver_.Kick(input_.Take<uint8_t>());
        return;
      }
      case 6: {
        driver_.transport().Quiesce();
        if (!driver_.SaveAndRestore(make_).ok()) __builtin_trap();
        return;
      }
      default:
        Request();
        return;
    }
  }

  // A chain in order, whose bytes are the fuzzer's.
  void Request() {
    uint32_t queue = Queue();
    auto shape = input_.Take<uint8_t>();
    if (driver_.MemoryLeft() < FakeDriver::kMemorySize / 4) return;
    auto out = input_.TakeBytes(input_.Take<uint8_t>());
    std::vector<FakeDriver::Buffer> buffers;
    if (!out.empty()) {
      buffers.push_back({driver_.Allocate(out), static_cast<uint32_t>(out.size()), false});
    }
    for (int n = shape % 4; n > 0; --n) {
      uint32_t size = input_.Take<uint16_t>() % 5000;
      buffers.push_back({driver_.Allocate(size), size, true});
    }
    if (buffers.empty()) return;
    while (driver_.TakeUsed(queue)) {
    }
    if (!driver_.CanAdd(queue, buffers.size())) return;
    driver_.Add(queue, buffers, (shape & 4) != 0);
    driver_.Kick(queue);
  }

  FuzzInput input_;
  const std::function<std::unique_ptr<Device>(vmm::EventLoop*)>& make_;
  FakeDriver driver_;
};

}  // namespace

void FuzzDevice(std::span<const uint8_t> input,
                const std::function<std::unique_ptr<Device>(vmm::EventLoop*)>& make) {
  Player(FuzzInput(input), make).Play();
}

}  // namespace cube::devices::virtio::fake
