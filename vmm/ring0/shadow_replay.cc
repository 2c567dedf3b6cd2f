#include "vmm/ring0/shadow_replay.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "vmm/memory_map.h"
#include "vmm/paging.h"

namespace cube::vmm::ring0 {
namespace {

// Pages of the slot.
constexpr size_t kRoot = 0, kPointers = 1, kDirectory = 2, kWindow = 3, kCodeTable = 4, kCode = 5;
constexpr size_t kCodePages = 2;
constexpr size_t kPages = kCode + kCodePages;
static_assert(kPages * kPageSize <= kRing0StubSize);

// Virtual addresses: a window of 2 MiB onto pages that hold entries, and the code after it.
constexpr uint64_t kCodeAddress = kLargePageSize;
constexpr uint64_t kSupervisor = kEntryPresent | kEntryWritable | kEntryAccessed | kEntryDirty;

// lock orq $0, address
constexpr uint8_t kStore[] = {0xf0, 0x48, 0x83, 0x0c, 0x25, 0, 0, 0, 0, 0};
constexpr size_t kStoreAddress = 5;
constexpr uint8_t kDone[] = {0xe6, ShadowReplay::kDonePort, 0xf4};
constexpr size_t kMaxEntries = (kCodePages * kPageSize - sizeof kDone) / sizeof kStore;

}  // namespace

Result<ShadowReplay> ShadowReplay::Create(const KvmVm& vm, uint32_t slot) {
  CUBE_ASSIGN(Mapping memory,
              Mapping::Map(kRing0StubSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                           0, "the replay stub"));
  CUBE_TRY(vm.SetMemorySlot(slot, kRing0StubAddress, memory.span()));
  ShadowReplay replay(std::move(memory));
  auto physical = [](size_t page) { return kRing0StubAddress + page * kPageSize; };
  replay.Table(kRoot)[0] = physical(kPointers) | kSupervisor;
  replay.Table(kPointers)[0] = physical(kDirectory) | kSupervisor;
  replay.Table(kDirectory)[0] = physical(kWindow) | kSupervisor;
  replay.Table(kDirectory)[1] = physical(kCodeTable) | kSupervisor;
  for (size_t i = 0; i < kCodePages; ++i) {
    replay.Table(kCodeTable)[i] = physical(kCode + i) | kSupervisor;
  }
  return replay;
}

uint64_t* ShadowReplay::Table(size_t page) const {
  return reinterpret_cast<uint64_t*>(memory_.data() + page * kPageSize);
}

uint64_t ShadowReplay::cr3() const { return kRing0StubAddress + kRoot * kPageSize; }
uint64_t ShadowReplay::entry() { return kCodeAddress; }

void ShadowReplay::Prepare(std::vector<uint64_t>* queue) {
  std::sort(queue->begin(), queue->end());
  queue->erase(std::unique(queue->begin(), queue->end()), queue->end());
  uint8_t* code = memory_.data() + kCode * kPageSize;
  size_t pages = 0, done = 0;
  uint64_t last_page = ~0ull;
  for (uint64_t entry : *queue) {
    uint64_t page = entry & ~(kPageSize - 1);
    if (page != last_page) {
      if (pages == kEntriesPerTable) break;
      Table(kWindow)[pages++] = page | kSupervisor;
      last_page = page;
    }
    if (done == kMaxEntries) break;
    auto address = static_cast<uint32_t>((pages - 1) * kPageSize + (entry & (kPageSize - 1)));
    memcpy(code, kStore, sizeof kStore);
    memcpy(code + kStoreAddress, &address, sizeof address);
    code += sizeof kStore;
    ++done;
  }
  memcpy(code, kDone, sizeof kDone);
  queue->erase(queue->begin(), queue->begin() + static_cast<ptrdiff_t>(done));
  replayed_ += done;
}

}  // namespace cube::vmm::ring0
