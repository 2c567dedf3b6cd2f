#ifndef CUBE_VMM_LOADER_ELF_LOADER_H_
#define CUBE_VMM_LOADER_ELF_LOADER_H_

#include <cstdint>
#include <span>

#include "base/result.h"
#include "vmm/guest_memory.h"
#include "vmm/loader/loaded_kernel.h"

namespace cube::vmm {

// True if `file` begins with the magic of ELF.
bool IsElf(std::span<const uint8_t> file);

// Copies the PT_LOAD segments of an x86-64 vmlinux to their physical addresses (p_paddr), which
// must lie between 1 MiB and the end of the RAM below the hole, apart from each other. The entry
// address of a vmlinux is physical and must lie in bytes that came from the file. All is checked
// first: after an error guest memory is as it was. Bss is made zero, but a page that reads as zero
// is not written, so fresh guest memory stays unallocated there.
Result<LoadedKernel> LoadElf(std::span<const uint8_t> file, const GuestMemory& memory);

}  // namespace cube::vmm

#endif  // CUBE_VMM_LOADER_ELF_LOADER_H_
