#ifndef CUBE_BENCH_CLAIMS_QEMU_PEER_H_
#define CUBE_BENCH_CLAIMS_QEMU_PEER_H_

#include <string>
#include <vector>

#include "bench/claims/trial_options.h"

namespace cube::bench {

inline constexpr char kQemu[] = "qemu-system-x86_64";

// Whether QEMU and what it boots are there.
bool HasQemu(const TrialOptions& options);

// QEMU's command for the guest that Cube boots without a root disk: the same kernel, initramfs and
// memory, machine microvm, TCG, the console on stdin and stdout. `words` are added to the kernel's.
std::vector<std::string> QemuCommand(const TrialOptions& options, const std::string& words = "");

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_QEMU_PEER_H_
