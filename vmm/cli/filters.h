#ifndef CUBE_VMM_CLI_FILTERS_H_
#define CUBE_VMM_CLI_FILTERS_H_

#include <string>

#include "base/result.h"
#include "vmm/syscall_filter.h"

namespace cube::vmm {

// The seccomp programs of a jailed process, which whoever has jailed it has left open.
struct Filters {
  SyscallFilter machine;  // of a machine's event loop, and of all its threads

  // `words`: "MACHINE,VCPU", two descriptors, which are closed; "" for none. The program of vCPUs
  // is set for the process (SyscallFilter::SetForVcpus).
  static Result<Filters> Of(const std::string& words);
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_FILTERS_H_
