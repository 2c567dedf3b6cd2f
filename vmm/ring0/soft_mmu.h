#ifndef CUBE_VMM_RING0_SOFT_MMU_H_
#define CUBE_VMM_RING0_SOFT_MMU_H_

#include <array>
#include <cstdint>
#include <cstring>

#include "vmm/bus.h"
#include "vmm/guest_memory.h"
#include "vmm/ring0/code_cache.h"
#include "vmm/ring0/cpu.h"
#include "vmm/ring0/page_flags.h"
#include "vmm/ring0/table_tracker.h"

namespace cube::vmm::ring0 {

// Guest-virtual memory as ring 0 of one vCPU reads, writes and fetches it: 4-level paging (Intel
// SDM volume 3, chapter 4) with rights, reserved bits, accessed and dirty bits, through a soft TLB
// that the guest must flush as it must a processor's.
//
// Functions that return false have stopped the Cpu: with an exception, or, for an address that is
// neither memory nor a device of ours, with a hand-off to KVM. They then have changed nothing but
// accessed bits. One thread.
class SoftMmu {
 public:
  enum class Access { kRead, kWrite, kFetch };

  struct Page {
    uint64_t physical;   // of the address asked for
    uint8_t* host;       // the host's view of that byte; null if the page is not memory
    bool user;
    bool global;
    bool writable;       // ring 0 may write, and the dirty bit is set
  };

  SoftMmu(const GuestMemory& memory, const Bus* mmio, PageFlags* flags, TableTracker* tables,
          CodeCache* code)
      : memory_(memory), mmio_(mmio), flags_(flags), tables_(tables), code_(code) {}

  // Walks the tables for `address`.
  bool Translate(Cpu& cpu, uint64_t address, Access access, Page* page);

  // The general case of loads and stores: TLB miss, two pages, device, table, code.
  bool Load(Cpu& cpu, uint64_t address, void* out, size_t size);
  bool Store(Cpu& cpu, uint64_t address, const void* bytes, size_t size);
  // Reads `size` bytes (1, 2, 4 or 8), asks `change` for what to store, and stores it in one atomic
  // step. `change` may be called again if another processor was quicker. An access across a page
  // boundary is not atomic.
  using Change = uint64_t (*)(uint64_t value, void* context);
  bool Modify(Cpu& cpu, uint64_t address, size_t size, Change change, void* context);
  // The host's view of 16 aligned bytes of plain memory, for CMPXCHG16B; null with the Cpu stopped.
  uint8_t* WritableBytes(Cpu& cpu, uint64_t address, size_t size);

  // A run of plain memory at `address` within its page, for repeated string instructions: its host
  // view and its length, at most `limit`; a length of 0 if only Load() and Store() will do.
  struct Run {
    uint8_t* host = nullptr;
    size_t size = 0;
  };
  bool ReadableRun(Cpu& cpu, uint64_t address, size_t limit, Run* run);
  bool WritableRun(Cpu& cpu, uint64_t address, size_t limit, Run* run);

  void FlushAll(Cpu& cpu);
  // What a load of CR3 drops: everything but global pages.
  void FlushForCr3(Cpu& cpu);
  void FlushPage(Cpu& cpu, uint64_t address);
  // MOV to CR3.
  void LoadCr3(Cpu& cpu, uint64_t value);
  // Drops rights to write pages that have become tables or code since the last call, and remembered
  // jumps into blocks that were dropped.
  void Refresh(Cpu& cpu);

  const GuestMemory& memory() const { return memory_; }

 private:
  bool PageFault(Cpu& cpu, uint64_t address, Access access, uint32_t extra);
  bool StorePhysical(const Page& page, const uint8_t* bytes, size_t size);
  void StoreTable(uint64_t physical, uint8_t* host, const uint8_t* bytes, size_t size);
  bool KnownForWriting(Cpu& cpu, uint64_t address, Page* page) const;
  void DropWrites(Cpu& cpu, uint64_t physical) const;
  static void ForgetJumps(Cpu& cpu);
  void Fill(Cpu& cpu, uint64_t address, const Page& page, bool write);

  const GuestMemory& memory_;
  const Bus* mmio_;
  PageFlags* flags_;
  TableTracker* tables_;
  CodeCache* code_;
  // Since the last FlushAll(): a page of the upper half was not global; the largest page seen.
  bool upper_half_has_local_ = false;
  std::array<int, 2> largest_page_bits_ = {12, 12};  // of the lower half and the upper
};

inline TlbEntry& TlbOf(Cpu& cpu, uint64_t address) {
  return cpu.tlb[(address >> 12 & (kTlbHalf - 1)) | (address >> 63) * kTlbHalf];
}

inline bool InOnePage(uint64_t address, size_t size) {
  return (address & (kPageSize - 1)) + size <= kPageSize;
}

template <typename T>
[[gnu::always_inline]] inline bool Load(Cpu& cpu, uint64_t address, T* out) {
  const TlbEntry& entry = TlbOf(cpu, address);
  if (entry.read_page == address >> 12 && InOnePage(address, sizeof(T))) [[likely]] {
    memcpy(out, reinterpret_cast<const void*>(address + entry.addend), sizeof(T));
    return true;
  }
  return cpu.mmu->Load(cpu, address, out, sizeof(T));
}

template <typename T>
[[gnu::always_inline]] inline bool Store(Cpu& cpu, uint64_t address, T value) {
  const TlbEntry& entry = TlbOf(cpu, address);
  if (entry.write_page == address >> 12 && InOnePage(address, sizeof(T))) [[likely]] {
    memcpy(reinterpret_cast<void*>(address + entry.addend), &value, sizeof(T));
    return true;
  }
  return cpu.mmu->Store(cpu, address, &value, sizeof(T));
}

// The host's view of an operand that may be written directly; null if Modify() must be used.
template <typename T>
[[gnu::always_inline]] inline T* Writable(Cpu& cpu, uint64_t address) {
  const TlbEntry& entry = TlbOf(cpu, address);
  if (entry.write_page == address >> 12 && InOnePage(address, sizeof(T))) [[likely]] {
    return reinterpret_cast<T*>(address + entry.addend);
  }
  return nullptr;
}

// Replaces the operand at `address` by change(operand): atomically if `kLocked`, or if the page
// needs care anyway. `change` may be called more than once.
template <typename T, bool kLocked, typename F>
[[gnu::always_inline]] inline bool Modify(Cpu& cpu, uint64_t address, F change) {
  if (T* operand = Writable<T>(cpu, address)) [[likely]] {
    T old = __atomic_load_n(operand, __ATOMIC_RELAXED);
    if constexpr (kLocked) {
      while (!__atomic_compare_exchange_n(operand, &old, change(old), false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED)) {
      }
    } else {
      T value = change(old);
      memcpy(operand, &value, sizeof(T));
    }
    return true;
  }
  return cpu.mmu->Modify(
      cpu, address, sizeof(T),
      [](uint64_t value, void* context) -> uint64_t {
        return (*static_cast<F*>(context))(static_cast<T>(value));
      },
      &change);
}

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_SOFT_MMU_H_
