#include "vmm/ring0/ram_slots.h"

#include <algorithm>
#include <bit>

#include "vmm/memory_map.h"
#include "vmm/paging.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

constexpr uint64_t kPieces = 16;
// What a hostile guest's tables can keep a walk of all of them busy with.
constexpr int kMostTables = 1 << 16;
// An exception's frame with its error code, below the stack pointer.
constexpr uint64_t kFrame = 64;
// The stack of ring 0 in a 64-bit TSS (SDM volume 3, 8.7).
constexpr uint64_t kTssStack = 4;
constexpr uint64_t kUserRootEntries = 256;

// KVM's paravirtual MSRs whose value is an address, some bits of which are flags
// (Documentation/virt/kvm/x86/msr.rst).
constexpr uint32_t kAddressMsrs[] = {0x11,       0x12,       0x4b564d00, 0x4b564d01,
                                     0x4b564d02, 0x4b564d03, 0x4b564d04};

}  // namespace

RamSlots::RamSlots(const KvmVm& vm, const GuestMemory& memory, uint32_t first_slot,
                   uint64_t least_piece)
    : vm_(vm), memory_(memory), first_slot_(first_slot) {
  uint64_t ram = 0;
  for (const MemoryRegion& region : memory.regions()) ram += region.ram ? region.host.size() : 0;
  piece_size_ =
      least_piece < kLeastPiece ? least_piece : std::max(least_piece, std::bit_ceil(ram / kPieces));
  for (const MemoryRegion& region : memory.regions()) {
    if (!region.ram) continue;
    for (uint64_t at = 0; at < region.host.size(); at += piece_size_) {
      uint64_t size = std::min(piece_size_, region.host.size() - at);
      pieces_.push_back({region.guest_address + at, region.host.subspan(at, size)});
    }
    if (region.guest_address == 0) {
      low_end_ = region.host.size();
      low_pieces_ = pieces_.size();
    }
  }
  made_ = std::make_unique<std::atomic<bool>[]>(pieces_.size());
  missing_ = pieces_.size();
}

size_t RamSlots::IndexOf(uint64_t physical) const {
  if (physical < low_end_) return physical / piece_size_;
  if (physical < kHoleEnd) return pieces_.size();
  uint64_t index = low_pieces_ + (physical - kHoleEnd) / piece_size_;
  if (index >= pieces_.size()) return pieces_.size();
  const Piece& piece = pieces_[index];
  return physical - piece.start < piece.host.size() ? index : pieces_.size();
}

bool RamSlots::IsMissing(uint64_t physical) const {
  size_t index = IndexOf(physical);
  return index < pieces_.size() && !made_[index].load(std::memory_order_acquire);
}

bool RamSlots::Make(size_t index) {
  std::lock_guard lock(mutex_);
  if (made_[index].load(std::memory_order_relaxed)) return false;
  const Piece& piece = pieces_[index];
  Status made =
      vm_.SetMemorySlot(first_slot_ + static_cast<uint32_t>(index), piece.start, piece.host);
  if (!made.ok() && status_.ok()) status_ = made;
  made_[index].store(true, std::memory_order_release);
  missing_.fetch_sub(1, std::memory_order_relaxed);
  return true;
}

bool RamSlots::Ensure(uint64_t physical) {
  if (complete()) return false;
  return IsMissing(physical) && Make(IndexOf(physical));
}

void RamSlots::Ensure(uint64_t physical, uint64_t size) {
  // Pieces begin at multiples of their size.
  for (uint64_t at = physical; at < physical + size && !complete();
       at = (at / piece_size_ + 1) * piece_size_) {
    Ensure(at);
  }
}

void RamSlots::EnsureAll() {
  for (size_t i = 0; i < pieces_.size(); ++i) Make(i);
}

uint64_t RamSlots::Entry(uint64_t table, uint64_t index) const {
  auto bytes = memory_.Slice(table + index * 8, 8);
  return bytes ? __atomic_load_n(reinterpret_cast<const uint64_t*>(bytes->data()), __ATOMIC_RELAXED)
               : 0;
}

std::optional<uint64_t> RamSlots::Walk(uint64_t root, uint64_t linear, int* made) {
  uint64_t table = root & kEntryAddress;
  for (int level = 3;; --level) {
    *made += Ensure(table) ? 1 : 0;
    uint64_t entry = Entry(table, linear >> PageBits(level) & (kEntriesPerTable - 1));
    if ((entry & kEntryPresent) == 0) return std::nullopt;
    if (level == 0 || (level < 3 && (entry & kEntryLarge) != 0)) {
      uint64_t within = (uint64_t{1} << PageBits(level)) - 1;
      uint64_t physical = (entry & kEntryAddress & ~within) | (linear & within);
      *made += Ensure(physical) ? 1 : 0;
      return physical;
    }
    table = entry & kEntryAddress;
  }
}

bool RamSlots::EnsureMapped(uint64_t root, uint64_t linear) {
  int made = 0;
  if (!complete()) (void)Walk(root, linear, &made);
  return made != 0;
}

void RamSlots::EnsureFrame(uint64_t root, uint64_t rsp) {
  EnsureMapped(root, rsp);
  EnsureMapped(root, rsp - kFrame);
}

void RamSlots::EnsureInterruptStack(uint64_t root, uint64_t tss) {
  if (complete()) return;
  int made = 0;
  uint64_t rsp = 0;
  std::optional<uint64_t> place = Walk(root, tss + kTssStack, &made);
  (void)Walk(root, tss + kTssStack + sizeof rsp - 1, &made);
  // Linux's begins a page; one that lay across two would be found by the exit it causes.
  if (place && memory_.Read(*place, {reinterpret_cast<uint8_t*>(&rsp), sizeof rsp}) && rsp != 0) {
    EnsureFrame(root, rsp - 1);
  }
}

void RamSlots::EnsureTable(uint64_t page, int level, int* budget) {
  Ensure(page);
  auto bytes = memory_.Slice(page, kPageSize);
  if (!bytes) return;
  uint64_t count = level == 3 ? kUserRootEntries : kEntriesPerTable;
  for (uint64_t i = 0; i < count && !complete(); ++i) {
    uint64_t entry = Entry(page, i);
    if ((entry & kEntryPresent) == 0 || (entry & kEntryUser) == 0) continue;
    if (level == 0 || (level < 3 && (entry & kEntryLarge) != 0)) {
      uint64_t size = uint64_t{1} << PageBits(level);
      Ensure(entry & kEntryAddress & ~(size - 1), size);
    } else if (--*budget > 0) {
      EnsureTable(entry & kEntryAddress, level - 1, budget);
    } else {
      return EnsureAll();
    }
  }
}

void RamSlots::EnsureUserSpace(uint64_t root) {
  int budget = kMostTables;
  EnsureTable(root & kEntryAddress, 3, &budget);
}

void RamSlots::EnsureForMsr(uint32_t index, uint64_t value) {
  constexpr uint64_t kFlags = 63;
  bool is_address =
      std::find(std::begin(kAddressMsrs), std::end(kAddressMsrs), index) != std::end(kAddressMsrs);
  if (is_address && value != 0) Ensure(value & ~kFlags);
}

void RamSlots::EnsureFor(const VcpuState& state) {
  for (const kvm_msr_entry& msr : state.msrs) {
    EnsureForMsr(msr.index, msr.data);
    if (msr.index == kMsrLstar) EnsureMapped(state.sregs.cr3, msr.data);
  }
  const kvm_sregs& sregs = state.sregs;
  constexpr uint64_t kPaging = uint64_t{1} << 31;
  if ((sregs.cr0 & kPaging) == 0 || (sregs.efer & kEferLongModeActive) == 0) return EnsureAll();
  EnsureUserSpace(sregs.cr3);
  EnsureMapped(sregs.cr3, state.regs.rip);
  EnsureMapped(sregs.cr3, sregs.gdt.base);
  EnsureFrame(sregs.cr3, state.regs.rsp);
  EnsureInterruptStack(sregs.cr3, sregs.tr.base);
}

std::vector<uint32_t> RamSlots::pieces() const {
  std::vector<uint32_t> made;
  for (uint32_t i = 0; i < pieces_.size(); ++i) {
    if (made_[i].load(std::memory_order_acquire)) made.push_back(i);
  }
  return made;
}

void RamSlots::EnsurePieces(std::span<const uint32_t> pieces) {
  for (uint32_t index : pieces) {
    if (index < pieces_.size()) Make(index);
  }
}

Status RamSlots::status() const {
  std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace cube::vmm::ring0
