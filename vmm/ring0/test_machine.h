#ifndef CUBE_VMM_RING0_TEST_MACHINE_H_
#define CUBE_VMM_RING0_TEST_MACHINE_H_

#include <array>
#include <cstdint>
#include <span>

#include "base/mapping.h"
#include "vmm/bus.h"
#include "vmm/guest_memory.h"
#include "vmm/ring0/code_cache.h"
#include "vmm/ring0/cpu.h"
#include "vmm/ring0/op.h"
#include "vmm/ring0/page_flags.h"
#include "vmm/ring0/soft_mmu.h"
#include "vmm/ring0/table_tracker.h"

namespace cube::vmm::ring0 {

// A vCPU with a little memory of its own, for tests: what the engine puts around the interpreter,
// without KVM. Paging is on, with NX, WP and global pages; nothing is mapped.
class TestMachine {
 public:
  static constexpr uint64_t kMemorySize = 2 << 20;
  static constexpr uint64_t kRoot = 0x1000;
  // Pages from here on are not used for tables by Map().
  static constexpr uint64_t kFree = 0x40000;
  // Where MmioDevice answers, outside memory.
  static constexpr uint64_t kMmio = 0x10000000;
  static constexpr uint64_t kRights = 0x3;  // present, writable

  TestMachine();
  TestMachine(const TestMachine&) = delete;
  TestMachine& operator=(const TestMachine&) = delete;

  // Maps a page with `flags` (bits of the leaf entry); tables on the way are made, with all rights.
  void Map(uint64_t address, uint64_t physical, uint64_t flags);
  // Maps a large page at level 2 or 3.
  void MapLarge(uint64_t address, uint64_t physical, uint64_t flags, int level);
  // The entry of `level` (4 is the root) that translates `address`; made if need be.
  uint64_t* Entry(uint64_t address, int level);
  // The host's view of physical memory.
  uint8_t* At(uint64_t physical) { return bytes_.data() + physical; }
  uint64_t& Quad(uint64_t physical) { return *reinterpret_cast<uint64_t*>(At(physical)); }

  // Copies code to physical memory as a store of the guest's would, seen by the code cache.
  void PutCode(uint64_t physical, std::span<const uint8_t> code);

  Cpu& cpu() { return cpu_; }
  SoftMmu& mmu() { return mmu_; }
  TableTracker& tables() { return tables_; }
  CodeCache& code() { return code_; }
  PageFlags& flags() { return flags_; }
  const GuestMemory& memory() { return memory_; }

  // Remembers what is written; reads as its own offset.
  class MmioDevice : public BusDevice {
   public:
    void Read(uint64_t offset, std::span<uint8_t> data) override;
    void Write(uint64_t offset, std::span<const uint8_t> data) override;
    uint64_t reads = 0, writes = 0, last_offset = 0, last_value = 0;
  };
  MmioDevice& device() { return device_; }

 private:
  Mapping bytes_;
  GuestMemory memory_;
  Bus mmio_;
  MmioDevice device_;
  PageFlags flags_;
  CodeCache code_;
  TableTracker tables_;
  SoftMmu mmu_;
  std::array<Op, 2> single_;
  uint64_t next_table_ = kRoot + kPageSize;
  Cpu cpu_;
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_TEST_MACHINE_H_
