#ifndef CUBE_POOL_PROCESS_METRICS_H_
#define CUBE_POOL_PROCESS_METRICS_H_

#include <sys/types.h>

#include <cstdint>

namespace cube::pool {

// What a machine's process uses of the host.
struct ProcessMetrics {
  double cpu_seconds = 0;     // user and system, guest included
  uint64_t memory_bytes = 0;  // private: written by the guest, or the VMM's own
  uint64_t shared_bytes = 0;  // mapped of the template, shared with others
  uint64_t disk_bytes = 0;    // written to its disks, allocated on the host
};

// Zeros of a process that is gone.
ProcessMetrics ReadProcessMetrics(pid_t pid);

}  // namespace cube::pool

#endif  // CUBE_POOL_PROCESS_METRICS_H_
