#ifndef CUBE_BENCH_CLAIMS_NETWORK_SCENARIO_H_
#define CUBE_BENCH_CLAIMS_NETWORK_SCENARIO_H_

#include "base/result.h"
#include "bench/claims/trial_options.h"
#include "bench/report/report.h"

namespace cube::bench {

// What `bench/fabric` measures in network namespaces of its own: attaching a TAP, changing a
// policy, judging a packet, traffic beside nftables. Without that program, nft or root it is a
// warning. Files in `folder`.
Status MeasureNetwork(const TrialOptions& options, const std::string& folder, Report* report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_NETWORK_SCENARIO_H_
