#ifndef CUBE_BENCH_CLAIMS_CREATE_SCENARIO_H_
#define CUBE_BENCH_CLAIMS_CREATE_SCENARIO_H_

#include "base/result.h"
#include "bench/claims/trial_node.h"
#include "bench/report/report.h"

namespace cube::bench {

// Names under which a verdict finds its figures.
inline constexpr char kCreateGroup[] = "create";
inline constexpr char kWarmReady[] = "to READY, a parked clone is there";
inline constexpr char kWarmOutput[] = "to the first command's output, a parked clone is there";
inline constexpr char kAtOnce[] = "many at once";
inline constexpr char kAllReady[] = "until all are READY";

// Creates one after another, each beside its peers in turn: with a parked clone, without one, and
// up to a command's output, which is a number made for it; a process, and one in namespaces of its
// own.
Status MeasureCreates(const TrialOptions& options, TrialNode* node, Report* report);

// `cube-vmm clone ... /bin/true`, a process each, before there is a daemon: with the template and
// the root disk in the page cache, and with none of them there.
Status MeasureColdClones(const TrialOptions& options, const TrialNode& node, Report* report);

// Creates at random moments, so many a second (open loop: each is timed from when it was due).
Status MeasureOpenLoop(const TrialOptions& options, TrialNode* node, Report* report);

// 1, 10, 20, 50, 100 at once: against parked clones, and without one (from one zygote).
Status MeasureBursts(const TrialOptions& options, TrialNode* node, Report* report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_CREATE_SCENARIO_H_
