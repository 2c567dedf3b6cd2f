#ifndef CUBE_BENCH_CLAIMS_OVERHEAD_SCENARIO_H_
#define CUBE_BENCH_CLAIMS_OVERHEAD_SCENARIO_H_

#include "base/result.h"
#include "bench/claims/trial_node.h"
#include "bench/report/report.h"

namespace cube::bench {

// Names under which a verdict finds its figures.
inline constexpr char kOverheadGroup[] = "overhead";

// What running in a machine costs: the same small programs in a guest and on the host in turn, one
// that computes, one that calls the kernel again and again, one that starts others; and the
// processor time of sandboxes that do nothing, and of cubed beside them.
Status MeasureOverhead(const TrialOptions& options, TrialNode* node, Report* report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_OVERHEAD_SCENARIO_H_
