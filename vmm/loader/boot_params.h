#ifndef CUBE_VMM_LOADER_BOOT_PARAMS_H_
#define CUBE_VMM_LOADER_BOOT_PARAMS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/result.h"
#include "vmm/guest_memory.h"
#include "vmm/loader/initrd_loader.h"
#include "vmm/loader/loaded_kernel.h"

namespace cube::vmm {

inline constexpr size_t kRngSeedSize = 32;

struct BootParamsConfig {
  // At most kCommandLineMaxSize - 1 bytes, none of them zero, and no more than a bzImage says its
  // kernel takes.
  std::string_view command_line;
  std::optional<Initrd> initrd;
  // Fresh random bytes of the host. Linux mixes them into its generator first thing
  // (SETUP_RNG_SEED) and wipes them.
  std::span<const uint8_t, kRngSeedSize> rng_seed;
};

// Writes what Linux reads at its 64-bit entry (Documentation/x86/boot.rst, zero-page.rst) to the
// fixed addresses of memory_map.h: the zero page with the memory map (e820), the command line, and
// the random seed. The mailbox and the devices are not in the memory map. The setup header is the
// kernel's own if it came from a bzImage, else made up for boot protocol 2.15.
Status WriteBootParams(const BootParamsConfig& config, const LoadedKernel& kernel,
                       const GuestMemory& memory);

}  // namespace cube::vmm

#endif  // CUBE_VMM_LOADER_BOOT_PARAMS_H_
