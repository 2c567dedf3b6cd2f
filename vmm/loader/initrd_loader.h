#ifndef CUBE_VMM_LOADER_INITRD_LOADER_H_
#define CUBE_VMM_LOADER_INITRD_LOADER_H_

#include <cstdint>
#include <string>

#include "base/result.h"
#include "vmm/guest_memory.h"
#include "vmm/loader/loaded_kernel.h"

namespace cube::vmm {

// No byte of an initrd lies above this: the limit of Linux Documentation/x86/boot.rst for kernels
// that do not tell theirs (initrd_addr_max), which every kernel honours.
inline constexpr uint64_t kInitrdAddressMax = 0x37ffffff;

// Where an initrd lies in guest memory: a page-aligned address, and its size in bytes.
struct Initrd {
  uint64_t address;
  uint64_t size;
};

// Reads a file straight into guest RAM, as high as possible below kInitrdAddressMax and the end of
// low RAM, above the kernel or, if it does not fit there, between 1 MiB and the kernel. Its format
// is the kernel's business. Errors name the file: missing, not a regular file, empty, larger than
// the memory left, cut short while it is read.
Result<Initrd> LoadInitrd(const std::string& path, const GuestMemory& memory,
                          const LoadedKernel& kernel);

}  // namespace cube::vmm

#endif  // CUBE_VMM_LOADER_INITRD_LOADER_H_
