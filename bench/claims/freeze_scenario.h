#ifndef CUBE_BENCH_CLAIMS_FREEZE_SCENARIO_H_
#define CUBE_BENCH_CLAIMS_FREEZE_SCENARIO_H_

#include "base/result.h"
#include "bench/claims/trial_node.h"
#include "bench/report/report.h"

namespace cube::bench {

inline constexpr char kFreezeGroup[] = "against memory written";

// Pause, resume, snapshot, rollback and forks of ten, by the node, of a sandbox that has written 0,
// 10, 50, 100 MiB (and 200, 500 in full) of random bytes since its template.
Status MeasureFreezes(const TrialOptions& options, TrialNode* node, Report* report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_FREEZE_SCENARIO_H_
