#include "vmm/syscall_filter.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/byte_io.h"

namespace cube::vmm {
namespace {

SyscallFilter& VcpuFilter() {
  static SyscallFilter filter;
  return filter;
}

}  // namespace

Result<SyscallFilter> SyscallFilter::Read(int fd) {
  CUBE_ASSIGN(uint64_t size, RegularFileSize(fd, "a seccomp program"));
  if (size == 0 || size % sizeof(sock_filter) != 0 || size > BPF_MAXINSNS * sizeof(sock_filter)) {
    return Errorf("a seccomp program of %llu bytes is not one of 1 to %d instructions",
                  static_cast<unsigned long long>(size), BPF_MAXINSNS);
  }
  SyscallFilter filter;
  filter.program_.resize(size / sizeof(sock_filter));
  CUBE_TRY(ReadExactAt(fd, {reinterpret_cast<uint8_t*>(filter.program_.data()), size}, 0,
                       "a seccomp program"));
  return filter;
}

Status SyscallFilter::Apply() const {
  if (program_.empty()) return OkStatus();
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return ErrnoError("no_new_privs");
  sock_fprog program = {};
  program.len = static_cast<unsigned short>(program_.size());
  program.filter = const_cast<sock_filter*>(program_.data());
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0) return ErrnoError("seccomp");
  return OkStatus();
}

void SyscallFilter::SetForVcpus(SyscallFilter filter) { VcpuFilter() = std::move(filter); }

Status SyscallFilter::ApplyToVcpu() { return VcpuFilter().Apply(); }

}  // namespace cube::vmm
