#ifndef CUBE_BENCH_CLAIMS_CHURN_SCENARIO_H_
#define CUBE_BENCH_CLAIMS_CHURN_SCENARIO_H_

#include "base/result.h"
#include "bench/claims/trial_node.h"
#include "bench/report/report.h"

namespace cube::bench {

// Creates, runs a command in, and kills sandboxes for `seconds`, `per_second` of them, each when it
// is due whatever became of those before. Curves of create latency, the host's MemAvailable,
// cubed's memory and descriptors against time, ten parts of the whole each, and their drift from
// the second part to the last.
Status MeasureChurn(TrialNode* node, double seconds, double per_second, Report* report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_CHURN_SCENARIO_H_
