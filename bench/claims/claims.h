#ifndef CUBE_BENCH_CLAIMS_CLAIMS_H_
#define CUBE_BENCH_CLAIMS_CLAIMS_H_

#include "base/result.h"
#include "bench/claims/trial_options.h"
#include "bench/report/report.h"

namespace cube::bench {

// Measures everything in turn, with a line to stderr for each part, and decides. A part that fails
// is a warning, and its claims are not measured; an error only if there is nothing to measure.
Result<Report> RunClaims(const TrialOptions& options);

// What HTTP costs (api_scenario.h).
Result<Report> RunApi(const TrialOptions& options);

// Creates, runs and kills for so long at that rate (churn_scenario.h).
Result<Report> RunChurn(const TrialOptions& options, double minutes, double per_second);

// How a warning begins that says that the machine was too busy for times to mean anything.
inline constexpr char kRunRejected[] = "the times of this run are rejected";

// The claims' verdicts by the report's figures: a create in under 60 ms (99 of 100, and the
// command's output), less than 5 MB of memory for an instance, and what this project has set
// itself. A report with a warning as above decides nothing by times.
std::vector<Claim> Decide(const Report& report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_CLAIMS_H_
