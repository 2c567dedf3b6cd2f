#include "bench/claims/qemu_peer.h"

#include "bench/claims/child.h"

namespace cube::bench {

bool HasQemu(const TrialOptions& options) { return HasProgram(kQemu) && !options.bzimage.empty(); }

std::vector<std::string> QemuCommand(const TrialOptions& options, const std::string& words) {
  return {kQemu,
          "-M",
          "microvm,acpi=off",
          "-accel",
          "tcg",
          "-cpu",
          "max",
          "-m",
          std::to_string(options.memory_mib),
          "-nodefaults",
          "-no-user-config",
          "-display",
          "none",
          "-serial",
          "stdio",
          "-no-reboot",
          "-kernel",
          options.bzimage,
          "-initrd",
          options.boot_initrd,
          "-append",
          "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable no_timer_check noreplace-smp "
          "percpu_alloc=page rodata=off" +
              words};
}

}  // namespace cube::bench
