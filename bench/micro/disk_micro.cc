// What a request costs the device, without a guest: one thread plays driver, and the device's event
// loop runs on it too. The driver's own part is the same in every row.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <vector>

#include "devices/blk/blk.h"
#include "devices/blk/testing/scratch.h"
#include "devices/virtio/testing/fake_driver.h"

namespace {

using namespace cube::devices;
using virtio::fake::FakeDriver;

constexpr uint64_t kDiskSize = 64 << 20;
constexpr uint32_t kBlock = 4096;

// Disk::Map() of 128 KiB. Every `range(0)`-th block is in the overlay; 0 for none.
void BM_Map(benchmark::State& state) {
  blk::testing::Scratch scratch;
  std::string base = scratch.Write("base", std::vector<uint8_t>(kDiskSize));
  auto disk = blk::Disk::Open({.base = base, .overlay = scratch.Path("overlay")}).value();
  auto every = static_cast<uint64_t>(state.range(0));
  for (uint64_t i = 0; every != 0 && i < kDiskSize / kBlock; i += every) {
    disk.overlay()->SetPresent(i, 1);
  }
  std::vector<blk::Disk::Extent> extents;
  uint64_t offset = 0;
  for (auto _ : state) {
    extents.clear();
    disk.Map(offset, 128 << 10, &extents);
    benchmark::DoNotOptimize(extents.data());
    offset = (offset + (1 << 20)) % kDiskSize;
  }
  state.counters["extents"] = static_cast<double>(extents.size());
}
BENCHMARK(BM_Map)->Arg(0)->Arg(16)->Arg(2)->Arg(1);

// Requests of 4 KiB, `range(2)` to a kick, of type `range(0)`; on an overlay if `range(1)`.
void BM_Requests(benchmark::State& state) {
  blk::testing::Scratch scratch;
  blk::DiskFiles files = {.base = scratch.Write("base", std::vector<uint8_t>(kDiskSize))};
  if (state.range(1) != 0) files.overlay = scratch.Path("overlay");
  FakeDriver driver([&](cube::vmm::EventLoop* loop) {
    return Blk::Create(blk::Disk::Open(files).value(), {.id = "bench"}, loop).value();
  });
  driver.Start();
  auto batch = static_cast<size_t>(state.range(2));
  std::vector<uint64_t> headers;
  for (size_t i = 0; i < batch; ++i) headers.push_back(driver.Allocate(sizeof(blk::RequestHeader)));
  uint64_t data = driver.Allocate(kBlock, kBlock);
  uint64_t status = driver.Allocate(1);
  auto type = static_cast<uint32_t>(state.range(0));
  uint64_t block = 0;
  for (auto _ : state) {
    for (uint64_t header : headers) {
      block = (block + 7919) % (kDiskSize / kBlock);
      driver.memory().WriteObject(header, blk::RequestHeader{type, 0, block * 8});
      driver.Add(0, {{header, sizeof(blk::RequestHeader), false},
                     {data, kBlock, type == blk::kRequestIn},
                     {status, 1, true}});
    }
    driver.Kick(0);
    for (size_t i = 0; i < batch; ++i) {
      if (!driver.WaitUsed(0)) abort();
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * batch));
}
BENCHMARK(BM_Requests)
    ->ArgNames({"type", "overlay", "batch"})
    ->ArgsProduct({{blk::kRequestIn, blk::kRequestOut}, {0, 1}, {1, 32}})
    ->MeasureProcessCPUTime();

}  // namespace
