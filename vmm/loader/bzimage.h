#ifndef CUBE_VMM_LOADER_BZIMAGE_H_
#define CUBE_VMM_LOADER_BZIMAGE_H_

#include <asm/bootparam.h>

#include <cstdint>
#include <span>

#include "base/result.h"

namespace cube::vmm {

// The parts of a bzImage the loader uses (Linux Documentation/x86/boot.rst).
struct BzImage {
  // As in the file; fields newer than the file's header are zero.
  setup_header header;
  // The compressed vmlinux, within the file that was parsed.
  std::span<const uint8_t> payload;
};

// True if `file` has the boot flag and the header magic of a Linux x86 kernel.
bool IsBzImage(std::span<const uint8_t> file);

// Finds the payload. Errors: a file shorter than its header says, and a boot protocol before 2.08,
// which has no payload_offset.
Result<BzImage> ParseBzImage(std::span<const uint8_t> file);

}  // namespace cube::vmm

#endif  // CUBE_VMM_LOADER_BZIMAGE_H_
