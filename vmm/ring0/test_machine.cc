#include "vmm/ring0/test_machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "vmm/paging.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {

TestMachine::TestMachine()
    : bytes_(Mapping::Map(kMemorySize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
                          "test memory")
                 .value()),
      memory_(GuestMemory::Borrow({{0, bytes_.span(), true}})),
      flags_(PageFlags::Create(kMemorySize).value()),
      code_(CodeCache::Create().value()),
      tables_(memory_, &flags_),
      mmu_(memory_, &mmio_, &flags_, &tables_, &code_) {
  code_.MarkIn(&flags_);
  if (!mmio_.Attach(kMmio, kPageSize, &device_).ok()) abort();
  cpu_.mmu = &mmu_;
  cpu_.code = &code_;
  cpu_.code_base = code_.base();
  cpu_.single = single_.data();
  cpu_.cr0 = kCr0Paging | kCr0ProtectionEnable | kCr0WriteProtect;
  cpu_.cr3 = kRoot;
  cpu_.cr4 = kCr4PhysicalAddressExtension | kCr4GlobalPages | kCr4FsGsBase;
  cpu_.efer = kEferLongModeEnable | kEferLongModeActive | kEferNoExecute;
  cpu_.cs = 0x10;
  cpu_.ss = 0x18;
  cpu_.budget = 1000;
  mmu_.FlushAll(cpu_);
}

uint64_t* TestMachine::Entry(uint64_t address, int level) {
  uint64_t table = kRoot;
  for (int at = 4;; --at) {
    auto* entry = reinterpret_cast<uint64_t*>(At(table)) + (address >> (3 + 9 * at) & 511);
    if (at == level) return entry;
    if ((*entry & kEntryPresent) == 0) {
      if (next_table_ >= kFree) abort();
      *entry = next_table_ | kEntryPresent | kEntryWritable | kEntryUser;
      next_table_ += kPageSize;
    }
    table = *entry & kEntryAddress;
  }
}

void TestMachine::Map(uint64_t address, uint64_t physical, uint64_t flags) {
  *Entry(address, 1) = physical | flags;
}

void TestMachine::MapLarge(uint64_t address, uint64_t physical, uint64_t flags, int level) {
  *Entry(address, level) = physical | flags | kEntryLarge;
}

void TestMachine::PutCode(uint64_t physical, std::span<const uint8_t> code) {
  code_.DropPage(physical);
  code_.DropPage(physical + code.size());
  memcpy(At(physical), code.data(), code.size());
  mmu_.Refresh(cpu_);
}

void TestMachine::MmioDevice::Read(uint64_t offset, std::span<uint8_t> data) {
  ++reads;
  last_offset = offset;
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(offset + i);
}

void TestMachine::MmioDevice::Write(uint64_t offset, std::span<const uint8_t> data) {
  ++writes;
  last_offset = offset;
  last_value = 0;
  memcpy(&last_value, data.data(), std::min<size_t>(data.size(), 8));
}

}  // namespace cube::vmm::ring0
