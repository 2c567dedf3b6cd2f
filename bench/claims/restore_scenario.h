#ifndef CUBE_BENCH_CLAIMS_RESTORE_SCENARIO_H_
#define CUBE_BENCH_CLAIMS_RESTORE_SCENARIO_H_

#include "base/result.h"
#include "bench/claims/trial_node.h"
#include "bench/report/report.h"

namespace cube::bench {

// A machine from a file to its first word, a process of its own each time, in turn: `cube-vmm
// clone` until it says READY, and QEMU's `-incoming` of a guest with the same kernel and memory
// that waits for a line on its console, until it has answered (machine microvm, TCG). Without QEMU
// it is a warning.
Status MeasureRestores(const TrialOptions& options, const TrialNode& node, Report* report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_RESTORE_SCENARIO_H_
