// What a buffer costs between a driver's ring and a device that only copies, and what finding a
// device on the bus costs. The driver's own part, and the event loop's, are in it.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <vector>

#include "devices/virtio/testing/echo_device.h"
#include "devices/virtio/testing/fake_driver.h"
#include "vmm/bus.h"

namespace {

using cube::devices::virtio::fake::EchoDevice;
using cube::devices::virtio::fake::FakeDriver;

// `range(0)` chains to a kick, of `range(1)` buffers of 64 bytes for each direction.
void BM_Queue(benchmark::State& state) {
  FakeDriver driver(EchoDevice::Make);
  driver.Start();
  const auto chains = static_cast<size_t>(state.range(0));
  const auto buffers = static_cast<size_t>(state.range(1));
  std::vector<FakeDriver::Buffer> chain;
  for (size_t i = 0; i < 2 * buffers; ++i) chain.push_back({driver.Allocate(64), 64, i >= buffers});
  for (auto _ : state) {
    for (size_t i = 0; i < chains; ++i) driver.Add(0, chain);
    driver.Kick(0);
    driver.Pump();
    for (size_t i = 0; i < chains; ++i) {
      if (!driver.TakeUsed(0)) abort();
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * chains));
}
BENCHMARK(BM_Queue)->ArgNames({"chains", "buffers"})->Args({1, 1})->Args({8, 1})->Args({1, 8});

class Register : public cube::vmm::BusDevice {
 public:
  void Read(uint64_t offset, std::span<uint8_t> data) override {
    data[0] = static_cast<uint8_t>(offset);
  }
  void Write(uint64_t, std::span<const uint8_t>) override {}
};

// A read of one of `range(0)` devices of 4 KiB.
void BM_MmioDispatch(benchmark::State& state) {
  constexpr uint64_t kFirst = 0xd0100000, kSize = 4096;
  const auto devices = static_cast<uint64_t>(state.range(0));
  Register device;
  cube::vmm::Bus bus;
  for (uint64_t i = 0; i < devices; ++i) {
    if (!bus.Attach(kFirst + i * kSize, kSize, &device).ok()) abort();
  }
  uint64_t at = 0;
  uint8_t data[4] = {};
  for (auto _ : state) {
    bus.Read(kFirst + at * kSize + 0x70, data);
    benchmark::DoNotOptimize(data);
    at = (at + 5) % devices;
  }
}
BENCHMARK(BM_MmioDispatch)->Arg(1)->Arg(8)->Arg(32);

}  // namespace
