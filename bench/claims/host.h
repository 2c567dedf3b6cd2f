#ifndef CUBE_BENCH_CLAIMS_HOST_H_
#define CUBE_BENCH_CLAIMS_HOST_H_

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/report/report.h"

namespace cube::bench {

// The machine: processor, count, memory, kernel, what KVM is and how ring 0 is run (as `vmm` says
// by `host --json`), versions.
Result<std::vector<Fact>> MachineFacts(const std::string& vmm);

// /proc/meminfo in KiB, by its names.
std::map<std::string, int64_t> MemoryOfHost();

// A process's memory in KiB, by /proc/PID/smaps_rollup.
struct ProcessMemory {
  int64_t pss = 0, anonymous = 0, private_dirty = 0;
};
Result<ProcessMemory> MemoryOfProcess(pid_t pid);

// The processor time that a process's live threads have had, ms (/proc/PID/task/*/schedstat).
double ProcessorMs(pid_t pid);

// How quiet the machine was since it was made, or was last asked.
class NoiseMeter {
 public:
  NoiseMeter();
  struct Noise {
    double steal_percent = 0;  // of all processors' time, taken by the host of this machine
    double load = 0;           // of the last minute
  };
  Noise Read();

 private:
  uint64_t all_ = 0, steal_ = 0;
};

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_HOST_H_
