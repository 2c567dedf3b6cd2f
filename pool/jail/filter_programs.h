#ifndef CUBE_POOL_JAIL_FILTER_PROGRAMS_H_
#define CUBE_POOL_JAIL_FILTER_PROGRAMS_H_

#include <string>

#include "base/result.h"

namespace cube::pool {

// Which threads of cube-vmm a list of system calls is for. What is not in its list ends the
// process; each list holds those of the lists after it.
enum class FilterKind {
  kZygote,           // the zygote, and what becomes a machine until it is one
  kMachineWithDisk,  // a machine's event loop, and its threads
  kMachine,          // without a disk, for which alone there is io_uring
  kVcpu,             // a thread that runs a vCPU
};

// The seccomp program of that list, as the kernel takes it (struct sock_filter).
Result<std::string> CompileFilter(FilterKind kind);

}  // namespace cube::pool

#endif  // CUBE_POOL_JAIL_FILTER_PROGRAMS_H_
