#ifndef CUBE_BENCH_CLAIMS_BOOT_SCENARIO_H_
#define CUBE_BENCH_CLAIMS_BOOT_SCENARIO_H_

#include "base/result.h"
#include "bench/claims/trial_options.h"
#include "bench/report/report.h"

namespace cube::bench {

// A boot to the end of /bin/true, by phase, as `cube-vmm run --boot --json` says, and in turn
// QEMU's of the same kernel and initramfs (microvm, TCG), where it is installed.
Status MeasureBoots(const TrialOptions& options, Report* report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_BOOT_SCENARIO_H_
