#ifndef CUBE_VMM_SYSCALL_FILTER_H_
#define CUBE_VMM_SYSCALL_FILTER_H_

#include <linux/filter.h>

#include <vector>

#include "base/result.h"

namespace cube::vmm {

// A seccomp program that this process was given: which system calls a thread may make. A call that
// it does not allow ends the process.
class SyscallFilter {
 public:
  SyscallFilter() = default;
  // All of the file `fd`, the kernel's instructions as they are in memory (struct sock_filter).
  static Result<SyscallFilter> Read(int fd);

  // For the calling thread, and those that it makes from here on; with those it has already. There
  // is no way back. Sets no_new_privs. Nothing if the filter is empty.
  Status Apply() const;

  // What each vCPU's thread applies before it runs: process-wide, set before there is any.
  static void SetForVcpus(SyscallFilter filter);
  static Status ApplyToVcpu();

 private:
  std::vector<sock_filter> program_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_SYSCALL_FILTER_H_
