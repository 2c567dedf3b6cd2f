#ifndef CUBE_VMM_PAGING_H_
#define CUBE_VMM_PAGING_H_

#include <cstdint>

// Page tables of 4-level paging (Intel SDM volume 3, 4.5): what their entries hold.
namespace cube::vmm {

inline constexpr uint64_t kEntryPresent = 1 << 0;
inline constexpr uint64_t kEntryWritable = 1 << 1;
inline constexpr uint64_t kEntryUser = 1 << 2;
inline constexpr uint64_t kEntryAccessed = 1 << 5;
inline constexpr uint64_t kEntryDirty = 1 << 6;
inline constexpr uint64_t kEntryLarge = 1 << 7;  // maps a page of 2 MiB or 1 GiB: no table below
inline constexpr uint64_t kEntryGlobal = 1 << 8;
inline constexpr uint64_t kEntryNoExecute = uint64_t{1} << 63;
inline constexpr uint64_t kEntryAddress = 0x000ffffffffff000;

inline constexpr uint64_t kEntriesPerTable = 512;
inline constexpr uint64_t kLargePageSize = 2 << 20;

// The bits of an address that an entry of a table at `level` leaves to the page: 12 for a page of
// 4 KiB (level 0), 21 for one of 2 MiB (level 1).
constexpr int PageBits(int level) { return 12 + 9 * level; }

// Bits 48 to 63 of a linear address repeat bit 47; any other raises #GP (SDM volume 1, 3.3.7.1).
constexpr bool IsCanonical(uint64_t address) {
  int64_t top = static_cast<int64_t>(address) >> 47;
  return top == 0 || top == -1;
}

}  // namespace cube::vmm

#endif  // CUBE_VMM_PAGING_H_
