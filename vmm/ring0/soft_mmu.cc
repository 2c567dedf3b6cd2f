#include "vmm/ring0/soft_mmu.h"

#include <algorithm>

#include "vmm/assist/guest_virtual.h"
#include "vmm/paging.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

constexpr uint32_t kFaultFetch = 16;
constexpr uint64_t kOffsetMask = kPageSize - 1;

uint64_t Bits(int from, int below) {
  return from >= below ? 0 : (~0ull >> (64 - (below - from))) << from;
}

// Bits that must be zero in a present entry of `level` (4 is the root).
uint64_t ReservedBits(const Cpu& cpu, uint64_t value, int level) {
  uint64_t reserved = Bits(cpu.physical_bits, 52);
  if ((cpu.efer & kEferNoExecute) == 0) reserved |= kEntryNoExecute;
  if (level == 4) reserved |= kEntryLarge;
  if ((value & kEntryLarge) != 0 && (level == 2 || level == 3)) {
    reserved |= Bits(13, 12 + 9 * (level - 1));
  }
  return reserved;
}

}  // namespace

bool SoftMmu::PageFault(Cpu& cpu, uint64_t address, Access access, uint32_t extra) {
  uint32_t error = extra;
  if (access == Access::kWrite) error |= kFaultWrite;
  bool fetch_matters = (cpu.efer & kEferNoExecute) != 0 || (cpu.cr4 & kCr4Smep) != 0;
  if (access == Access::kFetch && fetch_matters) error |= kFaultFetch;
  cpu.stop = Stop::kException;
  cpu.exception = {kVectorPageFault, true, false, error, address};
  return false;
}

bool SoftMmu::Translate(Cpu& cpu, uint64_t address, Access access, Page* page) {
  if (!IsCanonical(address)) {
    // #GP, or #SS through the stack: KVM knows which.
    cpu.stop = Stop::kHandOff;
    return false;
  }
  std::array<uint64_t*, 4> entries;
  size_t count = 0;
  bool writable = true, user = true, executable = true;
  uint64_t table = cpu.cr3 & kEntryAddress;
  uint64_t value = 0;
  int level = 4;
  for (;; --level) {
    uint64_t index = address >> (3 + 9 * level) & 511;
    auto bytes = memory_.Slice(table + index * 8, 8);
    if (!bytes) {
      cpu.stop = Stop::kHandOff;
      return false;
    }
    auto* entry = reinterpret_cast<uint64_t*>(bytes->data());
    value = __atomic_load_n(entry, __ATOMIC_ACQUIRE);
    if ((value & kEntryPresent) == 0) return PageFault(cpu, address, access, 0);
    if ((value & ReservedBits(cpu, value, level)) != 0) {
      return PageFault(cpu, address, access, kFaultPresent | kFaultReserved);
    }
    entries[count++] = entry;
    writable = writable && (value & kEntryWritable) != 0;
    user = user && (value & kEntryUser) != 0;
    executable = executable && (value & kEntryNoExecute) == 0;
    if (level == 1 || (level < 4 && (value & kEntryLarge) != 0)) break;
    table = value & kEntryAddress;
  }
  bool refused = false;
  switch (access) {
    case Access::kWrite:
      refused = !writable && (cpu.cr0 & kCr0WriteProtect) != 0;
      [[fallthrough]];
    case Access::kRead:
      refused = refused || (user && (cpu.cr4 & kCr4Smap) != 0 &&
                            (cpu.system_flags & kFlagAlignmentCheck) == 0);
      break;
    case Access::kFetch:
      refused = (!executable && (cpu.efer & kEferNoExecute) != 0) ||
                (user && (cpu.cr4 & kCr4Smep) != 0);
      break;
  }
  if (refused) return PageFault(cpu, address, access, kFaultPresent);
  for (size_t i = 0; i < count; ++i) {
    bool leaf = i == count - 1;
    uint64_t wanted = kEntryAccessed | (leaf && access == Access::kWrite ? kEntryDirty : 0);
    uint64_t seen = leaf ? value : __atomic_load_n(entries[i], __ATOMIC_RELAXED);
    // KVM and other processors may set bits of it at the same time.
    if ((seen & wanted) != wanted) __atomic_fetch_or(entries[i], wanted, __ATOMIC_SEQ_CST);
  }
  uint64_t mask = (1ull << (3 + 9 * level)) - 1;
  page->physical = (value & kEntryAddress & ~mask) | (address & mask);
  auto host = memory_.Slice(page->physical & ~kOffsetMask, kPageSize);
  page->host = host ? host->data() + (page->physical & kOffsetMask) : nullptr;
  page->user = user;
  page->global = (value & kEntryGlobal) != 0 && (cpu.cr4 & kCr4GlobalPages) != 0;
  page->writable = access == Access::kWrite;
  // What is translated may be remembered, by the TLB or as a jump.
  if (!page->global && address >> 63 != 0) upper_half_has_local_ = true;
  int& largest = largest_page_bits_[address >> 63];
  largest = std::max(largest, 3 + 9 * level);
  return true;
}

void SoftMmu::Fill(Cpu& cpu, uint64_t address, const Page& page, bool write) {
  // With SMAP a user page's rights change with RFLAGS.AC, which the fast path does not look at.
  if (page.user && (cpu.cr4 & kCr4Smap) != 0) return;
  TlbEntry& entry = TlbOf(cpu, address);
  uint64_t number = address >> 12;
  uint64_t addend = reinterpret_cast<uint64_t>(page.host) - address;
  // The guest may have changed the mapping without a flush: the right to write was the old page's.
  if (entry.read_page != number || entry.addend != addend) {
    entry.write_page = kNoPage;
    entry.special = 0;
  }
  entry.read_page = number;
  entry.addend = addend;
  if (!write) return;
  if (flags_->Get(page.physical) == 0) {
    entry.write_page = number;
  } else {
    entry.special = (page.physical & ~kOffsetMask) + 1;
  }
}

// Whether a store to tables or code may do without a walk, the last one having found it in order.
bool SoftMmu::KnownForWriting(Cpu& cpu, uint64_t address, Page* page) const {
  const TlbEntry& entry = TlbOf(cpu, address);
  if (entry.read_page != address >> 12 || entry.special == 0) return false;
  page->physical = (entry.special - 1) | (address & kOffsetMask);
  page->host = reinterpret_cast<uint8_t*>(address + entry.addend);
  return true;
}

bool SoftMmu::Load(Cpu& cpu, uint64_t address, void* out, size_t size) {
  auto* to = static_cast<uint8_t*>(out);
  size_t first = std::min<size_t>(size, kPageSize - (address & kOffsetMask));
  Page pages[2];
  if (!Translate(cpu, address, Access::kRead, &pages[0])) return false;
  if (first < size && !Translate(cpu, address + first, Access::kRead, &pages[1])) return false;
  if (pages[0].host == nullptr || (first < size && pages[1].host == nullptr)) {
    if (first == size && mmio_ != nullptr && mmio_->Claims(pages[0].physical)) {
      mmio_->Read(pages[0].physical, {to, size});
      return true;
    }
    cpu.stop = Stop::kHandOff;
    return false;
  }
  Fill(cpu, address, pages[0], false);
  memcpy(to, pages[0].host, first);
  if (first < size) memcpy(to + first, pages[1].host, size - first);
  return true;
}

void SoftMmu::StoreTable(uint64_t physical, uint8_t* host, const uint8_t* bytes, size_t size) {
  // Entry by entry: the old value must be the one that was replaced, since KVM may set the
  // accessed bit at any time.
  while (size > 0) {
    size_t offset = physical & 7;
    size_t piece = std::min<size_t>(size, 8 - offset);
    auto* entry = reinterpret_cast<uint64_t*>(host - offset);
    uint64_t old = __atomic_load_n(entry, __ATOMIC_RELAXED);
    uint64_t value;
    do {
      value = old;
      memcpy(reinterpret_cast<uint8_t*>(&value) + offset, bytes, piece);
    } while (!__atomic_compare_exchange_n(entry, &old, value, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
    tables_->Changed(physical - offset, old, value);
    physical += piece;
    host += piece;
    bytes += piece;
    size -= piece;
  }
}

bool SoftMmu::StorePhysical(const Page& page, const uint8_t* bytes, size_t size) {
  uint8_t flags = flags_->Get(page.physical);
  if ((flags & PageFlags::kCode) != 0) code_->DropPage(page.physical);
  if ((flags & PageFlags::kTable) != 0) {
    StoreTable(page.physical, page.host, bytes, size);
  } else {
    memcpy(page.host, bytes, size);
  }
  return true;
}

bool SoftMmu::Store(Cpu& cpu, uint64_t address, const void* bytes, size_t size) {
  auto* from = static_cast<const uint8_t*>(bytes);
  size_t first = std::min<size_t>(size, kPageSize - (address & kOffsetMask));
  Page pages[2];
  if (first == size && KnownForWriting(cpu, address, &pages[0])) {
    StorePhysical(pages[0], from, size);
    Refresh(cpu);
    return true;
  }
  if (!Translate(cpu, address, Access::kWrite, &pages[0])) return false;
  if (first < size && !Translate(cpu, address + first, Access::kWrite, &pages[1])) return false;
  if (pages[0].host == nullptr || (first < size && pages[1].host == nullptr)) {
    if (first == size && mmio_ != nullptr && mmio_->Claims(pages[0].physical)) {
      mmio_->Write(pages[0].physical, {from, size});
      return true;
    }
    cpu.stop = Stop::kHandOff;
    return false;
  }
  StorePhysical(pages[0], from, first);
  if (first < size) StorePhysical(pages[1], from + first, size - first);
  Fill(cpu, address, pages[0], true);
  Refresh(cpu);
  return true;
}

bool SoftMmu::Modify(Cpu& cpu, uint64_t address, size_t size, Change change, void* context) {
  uint64_t value = 0;
  if (!InOnePage(address, size)) {
    // Both pages are checked for writing before the value is read.
    Page page;
    uint64_t second = (address | kOffsetMask) + 1;
    if (!Translate(cpu, address, Access::kWrite, &page) ||
        !Translate(cpu, second, Access::kWrite, &page) ||
        !Load(cpu, address, &value, size)) {
      return false;
    }
    value = change(value, context);
    return Store(cpu, address, &value, size);
  }
  Page page;
  bool known = KnownForWriting(cpu, address, &page);
  if (!known && !Translate(cpu, address, Access::kWrite, &page)) return false;
  if (page.host == nullptr) {
    cpu.stop = Stop::kHandOff;
    return false;
  }
  uint8_t flags = flags_->Get(page.physical);
  if ((flags & PageFlags::kCode) != 0) code_->DropPage(page.physical);
  size_t offset = page.physical & 7;
  if (offset + size <= 8) {
    auto* word = reinterpret_cast<uint64_t*>(page.host - offset);
    uint64_t old = __atomic_load_n(word, __ATOMIC_RELAXED);
    uint64_t next;
    do {
      memcpy(&value, reinterpret_cast<uint8_t*>(&old) + offset, size);
      uint64_t changed = change(value, context);
      next = old;
      memcpy(reinterpret_cast<uint8_t*>(&next) + offset, &changed, size);
    } while (!__atomic_compare_exchange_n(word, &old, next, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
    if ((flags & PageFlags::kTable) != 0) tables_->Changed(page.physical - offset, old, next);
  } else {
    memcpy(&value, page.host, size);
    value = change(value, context);
    StorePhysical(page, reinterpret_cast<const uint8_t*>(&value), size);
  }
  if (!known) Fill(cpu, address, page, true);
  Refresh(cpu);
  return true;
}

uint8_t* SoftMmu::WritableBytes(Cpu& cpu, uint64_t address, size_t size) {
  Page page;
  if (!InOnePage(address, size)) {
    cpu.stop = Stop::kHandOff;
    return nullptr;
  }
  if (!Translate(cpu, address, Access::kWrite, &page)) return nullptr;
  uint8_t flags = page.host == nullptr ? 0 : flags_->Get(page.physical);
  if (page.host == nullptr || (flags & PageFlags::kTable) != 0) {
    cpu.stop = Stop::kHandOff;
    return nullptr;
  }
  if ((flags & PageFlags::kCode) != 0) {
    code_->DropPage(page.physical);
    Refresh(cpu);
  }
  return page.host;
}

bool SoftMmu::ReadableRun(Cpu& cpu, uint64_t address, size_t limit, Run* run) {
  limit = std::min<size_t>(limit, kPageSize - (address & kOffsetMask));
  const TlbEntry& entry = TlbOf(cpu, address);
  if (entry.read_page == address >> 12) {
    *run = {reinterpret_cast<uint8_t*>(address + entry.addend), limit};
    return true;
  }
  Page page;
  if (!Translate(cpu, address, Access::kRead, &page)) return false;
  *run = {page.host, page.host == nullptr ? 0 : limit};
  if (page.host != nullptr) Fill(cpu, address, page, false);
  return true;
}

bool SoftMmu::WritableRun(Cpu& cpu, uint64_t address, size_t limit, Run* run) {
  limit = std::min<size_t>(limit, kPageSize - (address & kOffsetMask));
  const TlbEntry& entry = TlbOf(cpu, address);
  if (entry.write_page == address >> 12) {
    *run = {reinterpret_cast<uint8_t*>(address + entry.addend), limit};
    return true;
  }
  Page page;
  if (!Translate(cpu, address, Access::kWrite, &page)) return false;
  bool plain = page.host != nullptr && flags_->Get(page.physical) == 0;
  *run = {page.host, plain ? limit : 0};
  if (plain) Fill(cpu, address, page, true);
  return true;
}

void SoftMmu::Refresh(Cpu& cpu) {
  if (cpu.page_generation != flags_->generation()) {
    uint64_t missed = flags_->generation() - cpu.page_generation;
    if (missed <= PageFlags::kRecent) {
      for (uint64_t g = cpu.page_generation; g != flags_->generation(); ++g) {
        DropWrites(cpu, flags_->Marked(g));
      }
    } else {
      for (TlbEntry& entry : cpu.tlb) entry.write_page = kNoPage;
    }
    cpu.page_generation = flags_->generation();
  }
  if (cpu.code_generation != code_->generation()) {
    cpu.code_generation = code_->generation();
    ForgetJumps(cpu);
  }
}

void SoftMmu::DropWrites(Cpu& cpu, uint64_t physical) const {
  auto bytes = memory_.Slice(physical, kPageSize);
  if (!bytes) return;
  auto host = reinterpret_cast<uint64_t>(bytes->data());
  for (TlbEntry& entry : cpu.tlb) {
    if ((entry.write_page << 12) + entry.addend == host) entry.write_page = kNoPage;
  }
}

void SoftMmu::ForgetJumps(Cpu& cpu) {
  for (size_t i = 0; i < kJumpEntries; ++i) cpu.jumps[i].rip = NoJump(i);
}

void SoftMmu::FlushAll(Cpu& cpu) {
  for (TlbEntry& entry : cpu.tlb) entry.read_page = entry.write_page = kNoPage;
  upper_half_has_local_ = false;
  largest_page_bits_ = {12, 12};
  for (FetchEntry& entry : cpu.fetches) entry.page = kNoPage;
  ForgetJumps(cpu);
}

void SoftMmu::FlushForCr3(Cpu& cpu) {
  if (upper_half_has_local_) return FlushAll(cpu);
  for (size_t i = 0; i < kTlbHalf; ++i) cpu.tlb[i].read_page = cpu.tlb[i].write_page = kNoPage;
  // Fetches and jumps are remembered only within the upper half, whose mappings are all global here.
}

void SoftMmu::LoadCr3(Cpu& cpu, uint64_t value) {
  uint64_t old = cpu.cr3;
  cpu.cr3 = value;
  tables_->SwitchRoot(old, value);
  FlushForCr3(cpu);
  Refresh(cpu);
}

void SoftMmu::FlushPage(Cpu& cpu, uint64_t address) {
  int bits = largest_page_bits_[address >> 63];
  if (bits == 12) {
    TlbEntry& entry = TlbOf(cpu, address);
    if (entry.read_page == address >> 12) entry.read_page = entry.write_page = kNoPage;
  } else {
    // Of a large page all must go, of which the TLB holds pieces of 4 KiB.
    for (size_t i = 0; i < kTlbHalf; ++i) {
      TlbEntry& entry = cpu.tlb[i | (address >> 63) * kTlbHalf];
      if (entry.read_page >> (bits - 12) != address >> bits) continue;
      entry.read_page = entry.write_page = kNoPage;
    }
  }
  // Of the lower half no fetch is remembered, and no jump but to the very end of the upper.
  if (address >> 63 == 0) return;
  for (FetchEntry& fetch : cpu.fetches) {
    if (fetch.page >> (bits - 12) == address >> bits) fetch.page = kNoPage;
  }
  if (!IsRemembered(address)) return;
  for (size_t i = 0; i < kJumpEntries; ++i) {
    auto rip = static_cast<uint64_t>(int64_t{cpu.jumps[i].rip});
    if (rip >> bits == address >> bits) cpu.jumps[i].rip = NoJump(i);
  }
}

}  // namespace cube::vmm::ring0
