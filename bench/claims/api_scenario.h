#ifndef CUBE_BENCH_CLAIMS_API_SCENARIO_H_
#define CUBE_BENCH_CLAIMS_API_SCENARIO_H_

#include "base/result.h"
#include "bench/claims/trial_node.h"
#include "bench/report/report.h"

namespace cube::bench {

// Names under which a verdict finds its figures.
inline constexpr char kApiGroup[] = "HTTP endpoint";
inline constexpr char kApiCreate[] = "POST /sandboxes, a parked clone is there";
inline constexpr char kApiList[] = "GET /sandboxes, 300 live";
inline constexpr char kApiHealth[] = "GET /health, of one processor of cubed's";

// What HTTP costs: creates beside those of the control socket in turn, 20 and 50 at once, a list of
// up to 300 live ones, a request to a sandbox through the proxy beside one straight to its socket,
// and how many of the least request one processor would answer. Connections stay open.
Status MeasureApi(const TrialOptions& options, TrialNode* node, Report* report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_API_SCENARIO_H_
