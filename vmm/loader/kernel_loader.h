#ifndef CUBE_VMM_LOADER_KERNEL_LOADER_H_
#define CUBE_VMM_LOADER_KERNEL_LOADER_H_

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "vmm/guest_memory.h"
#include "vmm/loader/loaded_kernel.h"
#include "vmm/memory_map.h"

namespace cube::vmm {

// The largest vmlinux that a bzImage may hold, in bytes.
inline constexpr uint64_t kMaxUnpackedKernel = kGiB;

// Loads a Linux kernel, an ELF vmlinux or a bzImage, into guest memory. A bzImage is decompressed
// here, on the host, and its vmlinux entered directly: the decompressor it carries never runs. The
// file is mapped while it is read; nothing of it is kept. Errors name the file.
Result<LoadedKernel> LoadKernel(const std::string& path, const GuestMemory& memory);

// The same for a file in memory. A bzImage that unpacks to more than `unpacked_limit` bytes is an
// error. After an error guest memory is as it was.
Result<LoadedKernel> LoadKernelImage(std::span<const uint8_t> file, const GuestMemory& memory,
                                     uint64_t unpacked_limit = kMaxUnpackedKernel);

}  // namespace cube::vmm

#endif  // CUBE_VMM_LOADER_KERNEL_LOADER_H_
