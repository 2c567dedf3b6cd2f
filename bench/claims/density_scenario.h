#ifndef CUBE_BENCH_CLAIMS_DENSITY_SCENARIO_H_
#define CUBE_BENCH_CLAIMS_DENSITY_SCENARIO_H_

#include "base/result.h"
#include "bench/claims/trial_node.h"
#include "bench/report/report.h"

namespace cube::bench {

inline constexpr char kMemoryGroup[] = "memory of an instance";
inline constexpr char kAvailableAt100[] = "the host's MemAvailable, 100 idle";

// Creates sandboxes up to 300 (fewer on a small machine), and when each number of them is idle:
// what one takes of the host's MemAvailable, its process's PSS and Anonymous, the kernel's slab,
// page tables, vmalloc and stacks; then after each of 100 has run a command, and of 20 a cell of
// Python. The pool is empty meanwhile. Creates at that number are timed as well, and the daemon's
// own memory.
Status MeasureDensity(TrialNode* node, Report* report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_DENSITY_SCENARIO_H_
