#ifndef CUBE_BENCH_CLAIMS_THROUGHPUT_SCENARIO_H_
#define CUBE_BENCH_CLAIMS_THROUGHPUT_SCENARIO_H_

#include "base/result.h"
#include "bench/claims/trial_node.h"
#include "bench/report/report.h"

namespace cube::bench {

// What a sandbox's devices move, as its programs see it: bytes to its root disk and from it past
// its page cache, and out of it over vsock. docs/devices.md has each device beside QEMU's.
Status MeasureThroughput(const TrialOptions& options, TrialNode* node, Report* report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_THROUGHPUT_SCENARIO_H_
