#include "vmm/ring0/kvm_stub.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "vmm/paging.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

// Pages of a stub.
constexpr size_t kPointers = 0, kDirectory = 1, kWindow = 2, kTable = 3, kIdt = 4, kGates = 5,
                 kReplay = 6, kReplayPages = 2;
static_assert((kReplay + kReplayPages) * kPageSize <= kRing0StubSize);

// Addresses from its base: a window of 2 MiB onto pages that hold entries, then its own pages.
constexpr uint64_t kOwnPages = kLargePageSize;
constexpr uint64_t kSupervisor = kEntryPresent | kEntryWritable | kEntryAccessed | kEntryDirty;
// "Guard hole, also reserved for hypervisor": ffff8000_00000000 and up.
constexpr uint64_t kFirstRootIndex = 256;

constexpr size_t kGateStride = 4;
constexpr uint8_t kGate[kGateStride] = {0xe6, KvmStub::kVectorPort, 0xf4, 0x90};  // out; hlt
// Behind the gates, in their page.
constexpr size_t kPoll = 256 * kGateStride;
constexpr uint8_t kPollCode[] = {0xe6, KvmStub::kPollPort, 0xf4};

// lock orq $0, address(%rip)
constexpr uint8_t kStore[] = {0xf0, 0x48, 0x83, 0x0d, 0, 0, 0, 0, 0};
constexpr size_t kStoreAddress = 4;
constexpr uint8_t kJump[] = {0xff, 0x25, 0, 0, 0, 0};  // jmp *(%rip), the target follows
constexpr uint8_t kDone[] = {0xe6, KvmStub::kReplayPort, 0xf4};
constexpr uint8_t kReturn[] = {0x48, 0xcf};  // iretq
// The frame of the return lies behind the code.
constexpr size_t kFrame = kReplayPages * kPageSize - sizeof(KvmStub::ReturnFrame);
constexpr size_t kMaxEntries = (kFrame - sizeof kJump - sizeof(uint64_t)) / sizeof kStore;
static_assert(sizeof kReturn <= sizeof kJump && sizeof kDone <= sizeof kJump);

}  // namespace

Result<StubMemory> StubMemory::Create(const KvmVm& vm, uint32_t slot) {
  constexpr uint64_t kSize = kRing0StubSize * kMaxCpus;
  CUBE_ASSIGN(Mapping memory,
              Mapping::Map(kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
                           "the engine's stubs"));
  CUBE_TRY(vm.SetMemorySlot(slot, kRing0StubAddress, memory.span()));
  return StubMemory(std::move(memory));
}

std::span<uint8_t> StubMemory::Of(uint32_t vcpu) const {
  return memory_.span().subspan(vcpu * kRing0StubSize, kRing0StubSize);
}

KvmStub::KvmStub(uint32_t vcpu, std::span<uint8_t> memory)
    : root_index_(kFirstRootIndex + vcpu),
      base_(0xffff000000000000 | root_index_ << PageBits(3)),
      physical_(StubMemory::PhysicalOf(vcpu)),
      memory_(memory) {
  auto physical = [this](size_t page) { return (physical_ + page * kPageSize) | kSupervisor; };
  Table(kPointers)[0] = physical(kDirectory);
  Table(kDirectory)[0] = physical(kWindow);
  Table(kDirectory)[1] = physical(kTable);
  for (size_t page = kIdt; page < kReplay + kReplayPages; ++page) {
    Table(kTable)[page] = physical(page);
  }
  for (size_t vector = 0; vector < 256; ++vector) {
    memcpy(memory_.data() + kGates * kPageSize + vector * kGateStride, kGate, sizeof kGate);
  }
  memcpy(memory_.data() + kGates * kPageSize + kPoll, kPollCode, sizeof kPollCode);
}

void KvmStub::MakeGates(uint16_t code) {
  code_ = code;
  for (uint64_t vector = 0; vector < 256; ++vector) {
    uint64_t gate = base_ + kOwnPages + kGates * kPageSize + vector * kGateStride;
    // Present interrupt gates; user mode may raise #BP and #OF by their own instructions.
    uint64_t privilege = vector == kVectorBreakpoint || vector == kVectorOverflow ? 3 : 0;
    Table(kIdt)[2 * vector] = (gate & 0xffff) | uint64_t{code} << 16 |
                              (0x8e00ull | privilege << 13) << 32 | (gate >> 16 & 0xffff) << 48;
    Table(kIdt)[2 * vector + 1] = gate >> 32;
  }
}

void KvmStub::SetNmiStack(uint8_t entry) {
  constexpr uint64_t kStack = 7ull << 32;
  uint64_t& gate = Table(kIdt)[2 * kVectorNmi];
  uint64_t wanted = (gate & ~kStack) | uint64_t{entry} << 32;
  if (gate != wanted) gate = wanted;
}

uint64_t* KvmStub::Table(size_t page) const {
  return reinterpret_cast<uint64_t*>(memory_.data() + page * kPageSize);
}

bool KvmStub::Map(const GuestMemory& guest, uint64_t cr3, uint16_t code) {
  if (code != code_) MakeGates(code);
  auto entry = guest.Slice((cr3 & kEntryAddress) + root_index_ * 8, 8);
  if (!entry) return false;
  root_entry_ = reinterpret_cast<uint64_t*>(entry->data());
  covered_ = __atomic_exchange_n(root_entry_, physical_ | kSupervisor, __ATOMIC_SEQ_CST);
  return true;
}

void KvmStub::Unmap() {
  if (root_entry_ == nullptr) return;
  __atomic_store_n(root_entry_, covered_, __ATOMIC_SEQ_CST);
  root_entry_ = nullptr;
}

uint64_t KvmStub::poll_entry() const { return base_ + kOwnPages + kGates * kPageSize + kPoll; }

uint64_t KvmStub::idt_base() const { return base_ + kOwnPages + kIdt * kPageSize; }

std::optional<uint8_t> KvmStub::VectorAt(uint64_t rip) const {
  // KVM shows the address of the OUT or the one after it.
  uint64_t offset = rip - (base_ + kOwnPages + kGates * kPageSize);
  if (offset >= 256 * kGateStride) return std::nullopt;
  return static_cast<uint8_t>(offset / kGateStride);
}

uint64_t KvmStub::replay_entry() const { return base_ + kOwnPages + kReplay * kPageSize; }

uint64_t KvmStub::replay_frame() const { return replay_entry() + kFrame; }

bool KvmStub::InReplay(uint64_t rip) const {
  return rip - replay_entry() < kReplayPages * kPageSize;
}

void KvmStub::UndoReplay(std::vector<uint64_t>* queue) const {
  queue->insert(queue->end(), last_replay_.begin(), last_replay_.end());
}

void KvmStub::PrepareReplay(std::vector<uint64_t>* queue, const ReplayEnd& end) {
  std::sort(queue->begin(), queue->end());
  queue->erase(std::unique(queue->begin(), queue->end()), queue->end());
  uint8_t* code = memory_.data() + kReplay * kPageSize;
  uint64_t address = kOwnPages + kReplay * kPageSize;  // from the base
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
    uint64_t target = (pages - 1) * kPageSize + (entry & (kPageSize - 1));
    address += sizeof kStore;
    auto displacement =
        static_cast<int32_t>(static_cast<int64_t>(target) - static_cast<int64_t>(address));
    memcpy(code, kStore, sizeof kStore);
    memcpy(code + kStoreAddress, &displacement, sizeof displacement);
    code += sizeof kStore;
    ++done;
  }
  last_replay_.assign(queue->begin(), queue->begin() + static_cast<ptrdiff_t>(done));
  queue->erase(queue->begin(), queue->begin() + static_cast<ptrdiff_t>(done));
  replayed_ += done;
  const auto* then = std::get_if<uint64_t>(&end);
  const auto* frame = std::get_if<ReturnFrame>(&end);
  if (queue->empty() && then != nullptr) {
    memcpy(code, kJump, sizeof kJump);
    memcpy(code + sizeof kJump, then, sizeof *then);
  } else if (queue->empty() && frame != nullptr) {
    memcpy(code, kReturn, sizeof kReturn);
    memcpy(memory_.data() + kReplay * kPageSize + kFrame, frame, sizeof *frame);
  } else {
    memcpy(code, kDone, sizeof kDone);
  }
}

}  // namespace cube::vmm::ring0
