#ifndef CUBE_VMM_LOADER_LOADED_KERNEL_H_
#define CUBE_VMM_LOADER_LOADED_KERNEL_H_

#include <asm/bootparam.h>

#include <cstdint>
#include <optional>

namespace cube::vmm {

// A kernel that lies in guest memory. All addresses are guest-physical.
struct LoadedKernel {
  // Where the boot CPU starts in 64-bit mode (startup_64 of Linux).
  uint64_t entry = 0;
  // [start, end) holds every loaded segment, bss included.
  uint64_t start = 0;
  uint64_t end = 0;
  // The setup header of the bzImage the kernel came from; a plain vmlinux has none.
  std::optional<setup_header> header;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_LOADER_LOADED_KERNEL_H_
