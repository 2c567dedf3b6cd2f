#ifndef CUBE_VMM_LOADER_BOOT_STATE_H_
#define CUBE_VMM_LOADER_BOOT_STATE_H_

#include <cstdint>

#include "base/result.h"
#include "vmm/guest_memory.h"

namespace cube::vmm {

// The state in which the boot CPU enters Linux by the 64-bit boot protocol (Linux
// Documentation/x86/boot.rst): long mode, paging on, interrupts off, flat segments with base 0 and
// limit 4 GiB. Registers not named here are 0; there is no interrupt table.
struct BootState {
  uint64_t rip;
  uint64_t rsi;  // the address of the boot parameters
  uint64_t rsp;
  uint64_t rflags;
  uint64_t cr0;
  uint64_t cr3;
  uint64_t cr4;
  uint64_t efer;
  uint64_t gdt_base;
  uint16_t gdt_limit;
  uint16_t code_selector;  // CS: 64-bit code, execute and read
  uint16_t data_selector;  // DS, ES, SS: data, read and write
};

// Writes the GDT and page tables that map the first 4 GiB to themselves into guest memory, at
// their addresses in memory_map.h, and gives the state that uses them to start at `entry`.
Result<BootState> WriteBootState(uint64_t entry, const GuestMemory& memory);

}  // namespace cube::vmm

#endif  // CUBE_VMM_LOADER_BOOT_STATE_H_
