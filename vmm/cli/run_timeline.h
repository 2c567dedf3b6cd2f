#ifndef CUBE_VMM_CLI_RUN_TIMELINE_H_
#define CUBE_VMM_CLI_RUN_TIMELINE_H_

#include <cstdint>
#include <string>

#include "base/json_writer.h"
#include "vmm/machine.h"

namespace cube::vmm {

// When each phase of a run ended, CLOCK_MONOTONIC nanoseconds; 0 for what did not happen.
struct RunTimeline {
  uint64_t start = 0;
  uint64_t probed = 0;
  uint64_t created = 0;
  uint64_t booted = 0;
  uint64_t ready = 0;
  uint64_t started = 0;
  uint64_t exited = 0;
};

// The last line of `run --json`: how the run ended, what it took, and what the machine, which has
// stopped, has counted.
JsonWriter RunReport(int status, const std::string& reason, const RunTimeline& time,
                     Ring0Mode ring0, const Machine& machine);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_RUN_TIMELINE_H_
