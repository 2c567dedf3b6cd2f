#include "vmm/assist/guest_virtual.h"

#include <algorithm>

#include "vmm/memory_map.h"
#include "vmm/paging.h"
#include "vmm/segments.h"

namespace cube::vmm {
struct GuestVirtual::Walk {
  int levels = 0;                // tables visited
  std::span<uint8_t> entries[4]; // host view of each entry on the path
  uint64_t values[4] = {};
  bool writable = true;
  bool user = true;
  uint64_t physical = 0;
};

// Follows the tables without changing them; false if an entry is absent or lies outside memory.
bool GuestVirtual::Walk4(uint64_t address, Walk* walk) const {
  uint64_t table = sregs_.cr3 & kEntryAddress;
  for (int level = 3; level >= 0; --level) {
    uint64_t index = address >> PageBits(level) & (kEntriesPerTable - 1);
    auto entry = memory_.Slice(table + index * 8, 8);
    if (!entry) return false;
    uint64_t value = __atomic_load_n(reinterpret_cast<uint64_t*>(entry->data()), __ATOMIC_ACQUIRE);
    if ((value & kEntryPresent) == 0) return false;
    walk->entries[walk->levels] = *entry;
    walk->values[walk->levels] = value;
    ++walk->levels;
    walk->writable = walk->writable && (value & kEntryWritable) != 0;
    walk->user = walk->user && (value & kEntryUser) != 0;
    bool large = (level == 1 || level == 2) && (value & kEntryLarge) != 0;
    if (large || level == 0) {
      uint64_t mask = (1ull << PageBits(level)) - 1;
      walk->physical = (value & kEntryAddress & ~mask) | (address & mask);
      return true;
    }
    table = value & kEntryAddress;
  }
  return false;
}

std::optional<uint64_t> GuestVirtual::Translate(uint64_t address, bool write,
                                                PageFault* fault) const {
  uint32_t access = write ? kFaultWrite : 0;
  if ((sregs_.cr0 & kCr0Paging) == 0) return address;
  Walk walk;
  if (!IsCanonical(address) || !Walk4(address, &walk)) {
    *fault = {address, access};
    return std::nullopt;
  }
  bool smap = walk.user && (sregs_.cr4 & kCr4Smap) != 0 && (rflags_ & kFlagAlignmentCheck) == 0;
  bool read_only = write && !walk.writable && (sregs_.cr0 & kCr0WriteProtect) != 0;
  if (smap || read_only) {
    *fault = {address, access | kFaultPresent};
    return std::nullopt;
  }
  for (int i = 0; i < walk.levels; ++i) {
    bool leaf = i == walk.levels - 1;
    uint64_t wanted = kEntryAccessed | (leaf && write ? kEntryDirty : 0);
    if ((walk.values[i] & wanted) == wanted) continue;
    // Another vCPU may change the entry meanwhile: bits are added, nothing is overwritten.
    __atomic_fetch_or(reinterpret_cast<uint64_t*>(walk.entries[i].data()), wanted,
                      __ATOMIC_SEQ_CST);
  }
  return walk.physical;
}

std::optional<uint64_t> GuestVirtual::Peek(uint64_t address) const {
  if ((sregs_.cr0 & kCr0Paging) == 0) return address;
  Walk walk;
  if (!IsCanonical(address) || !Walk4(address, &walk)) return std::nullopt;
  return walk.physical;
}

bool GuestVirtual::Read(uint64_t address, std::span<uint8_t> out, PageFault* fault) const {
  while (!out.empty()) {
    size_t piece = std::min<size_t>(out.size(), kPageSize - address % kPageSize);
    auto physical = Translate(address, false, fault);
    if (!physical) return false;
    // Memory that is not RAM (a device) cannot be the operand of what this layer carries out.
    if (!memory_.Read(*physical, out.first(piece))) {
      *fault = {address, kFaultPresent | kFaultReserved};
      return false;
    }
    out = out.subspan(piece);
    address += piece;
  }
  return true;
}

bool GuestVirtual::CheckWrite(uint64_t address, size_t size, PageFault* fault) const {
  while (size > 0) {
    size_t piece = std::min<size_t>(size, kPageSize - address % kPageSize);
    auto physical = Translate(address, true, fault);
    if (!physical) return false;
    if (!memory_.Slice(*physical, piece)) {
      *fault = {address, kFaultPresent | kFaultWrite | kFaultReserved};
      return false;
    }
    size -= piece;
    address += piece;
  }
  return true;
}

bool GuestVirtual::Write(uint64_t address, std::span<const uint8_t> bytes,
                         PageFault* fault) const {
  if (!CheckWrite(address, bytes.size(), fault)) return false;
  while (!bytes.empty()) {
    size_t piece = std::min<size_t>(bytes.size(), kPageSize - address % kPageSize);
    // Another vCPU may have changed the tables meanwhile.
    auto physical = Translate(address, true, fault);
    if (!physical) return false;
    if (!memory_.Write(*physical, bytes.first(piece))) {
      *fault = {address, kFaultPresent | kFaultWrite | kFaultReserved};
      return false;
    }
    bytes = bytes.subspan(piece);
    address += piece;
  }
  return true;
}

size_t GuestVirtual::PeekBytes(uint64_t address, std::span<uint8_t> out) const {
  size_t done = 0;
  while (done < out.size()) {
    size_t piece = std::min<size_t>(out.size() - done, kPageSize - address % kPageSize);
    auto physical = Peek(address);
    if (!physical || !memory_.Read(*physical, out.subspan(done, piece))) break;
    done += piece;
    address += piece;
  }
  return done;
}

}  // namespace cube::vmm
