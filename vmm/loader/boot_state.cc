#include "vmm/loader/boot_state.h"

#include <cstddef>

#include "vmm/loader/placement.h"
#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

constexpr uint64_t kCr0ProtectedMode = 1 << 0;
constexpr uint64_t kCr0MonitorCoprocessor = 1 << 1;
constexpr uint64_t kCr0ExtensionType = 1 << 4;
constexpr uint64_t kCr0NumericError = 1 << 5;
constexpr uint64_t kCr0WriteProtect = 1 << 16;
constexpr uint64_t kCr0AlignmentMask = 1 << 18;
constexpr uint64_t kCr0Paging = uint64_t{1} << 31;
constexpr uint64_t kCr4PhysicalAddressExtension = 1 << 5;
constexpr uint64_t kEferLongModeEnable = 1 << 8;
constexpr uint64_t kEferLongModeActive = 1 << 10;
constexpr uint64_t kRflagsAlwaysSet = 1 << 1;

constexpr uint64_t kPagePresent = 1 << 0;
constexpr uint64_t kPageWritable = 1 << 1;
constexpr uint64_t kPageLarge = 1 << 7;
constexpr uint64_t kLargePageSize = 2 * kMiB;
constexpr size_t kEntriesPerTable = 512;
constexpr size_t kDirectories = 4;

// A segment descriptor with base 0 and limit 4 GiB (Intel SDM volume 3, 3.4.5).
constexpr uint64_t FlatSegment(uint64_t type, uint64_t flags) {
  constexpr uint64_t kLimit = 0x000f00000000ffff;
  constexpr uint64_t kSystem = uint64_t{1} << 44;  // code or data
  constexpr uint64_t kPresent = uint64_t{1} << 47;
  return kLimit | type << 40 | kSystem | kPresent | flags << 52;
}
// Already marked accessed, so that loading them writes nothing.
constexpr uint64_t kTypeCode = 0xb;
constexpr uint64_t kTypeData = 0x3;
constexpr uint64_t kFlagsLongCode = 0xa;  // 4 KiB granularity, 64-bit
constexpr uint64_t kFlagsData = 0xc;      // 4 KiB granularity, 32-bit

// The boot protocol fixes the selectors: __BOOT_CS is 0x10 and __BOOT_DS is 0x18.
constexpr uint64_t kGdt[] = {0, 0, FlatSegment(kTypeCode, kFlagsLongCode),
                             FlatSegment(kTypeData, kFlagsData)};
constexpr uint16_t kCodeSelector = 2 * sizeof(uint64_t);
constexpr uint16_t kDataSelector = 3 * sizeof(uint64_t);
static_assert(kGdt[2] == 0x00af9b000000ffff && kGdt[3] == 0x00cf93000000ffff);

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
  return (kBootPageTables + offset) | kPagePresent | kPageWritable;
}

BootPageTables IdentityMap() {
  BootPageTables tables = {};
  tables.level4.entries[0] = TableEntry(offsetof(BootPageTables, level3));
  for (size_t i = 0; i < kDirectories; ++i) {
    tables.level3.entries[i] =
        TableEntry(offsetof(BootPageTables, level2) + i * sizeof(PageTable));
    for (size_t j = 0; j < kEntriesPerTable; ++j) {
      uint64_t address = (i * kEntriesPerTable + j) * kLargePageSize;
      tables.level2[i].entries[j] = address | kPagePresent | kPageWritable | kPageLarge;
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
  state.rflags = kRflagsAlwaysSet;
  state.cr0 = kCr0ProtectedMode | kCr0MonitorCoprocessor | kCr0ExtensionType | kCr0NumericError |
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
