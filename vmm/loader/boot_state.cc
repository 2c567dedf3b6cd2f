#include "vmm/loader/boot_state.h"

#include <cstddef>

#include "vmm/loader/placement.h"
#include "vmm/memory_map.h"
#include "vmm/paging.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

constexpr size_t kDirectories = 4;

// The boot protocol fixes the selectors: __BOOT_CS is 0x10 and __BOOT_DS is 0x18.
constexpr uint64_t kGdt[] = {0, 0, LongModeCodeDescriptor(0), DataDescriptor(0)};
constexpr uint16_t kCodeSelector = 2 * sizeof(uint64_t);
constexpr uint16_t kDataSelector = 3 * sizeof(uint64_t);

struct PageTable {
  uint64_t entries[kEntriesPerTable];
};
static_assert(sizeof(PageTable) == kPageSize);

struct BootPageTables {
  PageTable level4;
  PageTable level3;
  PageTable level2[kDirectories];
};
static_assert(sizeof(BootPageTables) == kBootPageTablesSize);

constexpr uint64_t TableEntry(size_t offset) {
  return (kBootPageTables + offset) | kEntryPresent | kEntryWritable;
}

BootPageTables IdentityMap() {
  BootPageTables tables = {};
  tables.level4.entries[0] = TableEntry(offsetof(BootPageTables, level3));
  for (size_t i = 0; i < kDirectories; ++i) {
    tables.level3.entries[i] =
        TableEntry(offsetof(BootPageTables, level2) + i * sizeof(PageTable));
    for (size_t j = 0; j < kEntriesPerTable; ++j) {
      uint64_t address = (i * kEntriesPerTable + j) * kLargePageSize;
      tables.level2[i].entries[j] = address | kEntryPresent | kEntryWritable | kEntryLarge;
    }
  }
  return tables;
}

}  // namespace

Result<BootState> WriteBootState(uint64_t entry, const GuestMemory& memory) {
  CUBE_TRY(PlaceObject(memory, kGdtAddress, kGdt, "boot GDT"));
  CUBE_TRY(PlaceObject(memory, kBootPageTables, IdentityMap(), "boot page tables"));
  BootState state = {};
  state.rip = entry;
  state.rsi = kBootParamsAddress;
  state.rsp = kBootStackTop;
  state.rflags = kFlagReserved;
  state.cr0 = kCr0ProtectionEnable | kCr0MonitorCoprocessor | kCr0ExtensionType | kCr0NumericError |
              kCr0WriteProtect | kCr0AlignmentMask | kCr0Paging;
  state.cr3 = kBootPageTables;
  state.cr4 = kCr4PhysicalAddressExtension;
  state.efer = kEferLongModeEnable | kEferLongModeActive;
  state.gdt_base = kGdtAddress;
  state.gdt_limit = sizeof kGdt - 1;
  state.code_selector = kCodeSelector;
  state.data_selector = kDataSelector;
  return state;
}

}  // namespace cube::vmm
