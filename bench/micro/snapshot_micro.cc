// The parts of a snapshot that cost time whatever the machine does: its state to bytes and back,
// the private pages of its memory found, hashed and compressed.
#include <benchmark/benchmark.h>
#include <lz4.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "base/mapping.h"
#include "snapshot/machine_sections.h"
#include "snapshot/page_hasher.h"
#include "snapshot/page_scan.h"
#include "snapshot/state_file.h"
#include "snapshot/test_snapshot.h"

namespace {

using namespace cube::snapshot;

constexpr size_t kPage = 4096;

void BM_StateEncode(benchmark::State& state) {
  cube::vmm::MachineState machine = TestState();
  size_t bytes = 0;
  for (auto _ : state) {
    std::vector<uint8_t> file = EncodeState(EncodeMachine(machine));
    benchmark::DoNotOptimize(file.data());
    bytes = file.size();
  }
  state.counters["bytes"] = static_cast<double>(bytes);
}
BENCHMARK(BM_StateEncode);

void BM_StateDecode(benchmark::State& state) {
  std::vector<uint8_t> file = EncodeState(EncodeMachine(TestState()));
  Manifest manifest = TestManifest();
  for (auto _ : state) {
    auto sections = DecodeState(file);
    if (!sections.ok()) abort();
    auto machine = DecodeMachine(*sections, manifest);
    if (!machine.ok()) abort();
    benchmark::DoNotOptimize(&*machine);
  }
}
BENCHMARK(BM_StateDecode);

// A private mapping of 256 MiB of a file in memory, of which every `range(0)`-th page is written.
void BM_PageScan(benchmark::State& state) {
  constexpr size_t kSize = 256u << 20;
  cube::UniqueFd file(memfd_create("bench", MFD_CLOEXEC));
  if (!file.valid() || ftruncate(file.get(), kSize) != 0) abort();
  void* at = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get(), 0);
  if (at == MAP_FAILED) abort();
  auto* bytes = static_cast<uint8_t*>(at);
  const auto every = static_cast<size_t>(state.range(0));
  for (size_t page = 0; page < kSize / kPage; page += every) bytes[page * kPage] = 1;
  auto scan =
      PageScan::Open(state.range(1) != 0 ? PageScan::Method::kBest : PageScan::Method::kPagemap);
  if (!scan.ok()) abort();
  size_t runs_found = 0;
  for (auto _ : state) {
    std::vector<PageRun> runs;
    if (!scan->Find({bytes, kSize}, 0, &runs).ok()) abort();
    runs_found = runs.size();
  }
  state.counters["runs"] = static_cast<double>(runs_found);
  munmap(at, kSize);
}
BENCHMARK(BM_PageScan)
    ->ArgNames({"every", "ioctl"})
    ->ArgsProduct({{2, 16, 512, 65536}, {0, 1}})
    ->Unit(benchmark::kMicrosecond);

// Half text-like, half random, as memory is.
std::vector<uint8_t> SomeMemory(size_t size) {
  std::mt19937_64 random(1);
  std::vector<uint8_t> memory(size);
  for (size_t i = 0; i < size; i += 8) {
    uint64_t value = (i / kPage) % 2 == 0 ? random() % 64 : random();
    memcpy(&memory[i], &value, 8);
  }
  return memory;
}

void BM_HashPages(benchmark::State& state) {
  std::vector<uint8_t> memory = SomeMemory(1 << 20);
  for (auto _ : state) {
    PageHasher hasher;
    hasher.AddPages(memory, 0);
    benchmark::DoNotOptimize(hasher.Hex());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * memory.size()));
}
BENCHMARK(BM_HashPages);

void BM_Lz4Chunk(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  std::vector<uint8_t> memory = SomeMemory(size);
  std::vector<char> out(static_cast<size_t>(LZ4_compressBound(static_cast<int>(size))));
  int written = 0;
  for (auto _ : state) {
    written = LZ4_compress_default(reinterpret_cast<const char*>(memory.data()), out.data(),
                                   static_cast<int>(size), static_cast<int>(out.size()));
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["share"] = static_cast<double>(written) / static_cast<double>(size);
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * size));
}
BENCHMARK(BM_Lz4Chunk)->Arg(4096)->Arg(64 << 10);

}  // namespace
