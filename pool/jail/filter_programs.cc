#include "pool/jail/filter_programs.h"

#include <linux/audit.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/byte_io.h"
#include "base/unique_fd.h"

namespace cube::pool {
namespace {

struct Release {
  void operator()(void* context) const { seccomp_release(context); }
};
using Context = std::unique_ptr<void, Release>;

// Adds system calls to one program; the first failure is kept.
class List {
 public:
  explicit List(scmp_filter_ctx context) : context_(context) {}

  List& Allow(std::initializer_list<int> calls) {
    for (int call : calls) Add(SCMP_ACT_ALLOW, call, {});
    return *this;
  }
  // Where all of these are true of its arguments.
  List& AllowIf(int call, std::initializer_list<scmp_arg_cmp> conditions) {
    Add(SCMP_ACT_ALLOW, call, conditions);
    return *this;
  }
  // Not there, as far as the caller can tell.
  List& Deny(int call, int error) {
    Add(SCMP_ACT_ERRNO(static_cast<uint32_t>(error)), call, {});
    return *this;
  }
  int failed() const { return failed_; }

 private:
  void Add(uint32_t action, int call, std::initializer_list<scmp_arg_cmp> conditions) {
    int added = seccomp_rule_add_array(
        context_, action, call, static_cast<unsigned>(conditions.size()), conditions.begin());
    if (added < 0 && failed_ == 0) failed_ = added;
  }

  scmp_filter_ctx context_;
  int failed_ = 0;
};

scmp_arg_cmp Masked(unsigned argument, uint64_t mask, uint64_t value) {
  return {argument, SCMP_CMP_MASKED_EQ, mask, value};
}
scmp_arg_cmp Equal(unsigned argument, uint64_t value) { return {argument, SCMP_CMP_EQ, value, 0}; }

// KVM's, and those of page maps and fibmaps ('f').
constexpr uint64_t kIoctlTypes[] = {0xae00, 0x6600};
constexpr uint64_t kIoctlTypeMask = 0xff00;
// What libc asks to learn that something is no terminal, and what a driver's choice does to a TAP.
constexpr uint64_t kVcpuIoctls[] = {TCGETS, TIOCGWINSZ, TUNSETOFFLOAD};
// What takes a TAP over that the node has made. It stays the node's: neither attached elsewhere nor
// kept or given away (TUNSETIFF, TUNSETPERSIST, TUNSETOWNER), nor has it filters.
constexpr uint64_t kTapIoctls[] = {TUNGETIFF, TUNSETVNETHDRSZ, TUNSETSNDBUF};

constexpr uint64_t kNewNamespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
                                    CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWCGROUP;

// A vCPU's thread: it runs the guest, and what the guest does to devices.
void AddVcpu(List* list) {
  for (uint64_t type : kIoctlTypes) {
    list->AllowIf(SCMP_SYS(ioctl), {Masked(1, kIoctlTypeMask, type)});
  }
  for (uint64_t request : kVcpuIoctls) list->AllowIf(SCMP_SYS(ioctl), {Equal(1, request)});
  // Nothing becomes executable.
  list->AllowIf(SCMP_SYS(mmap), {Masked(2, PROT_EXEC, 0)})
      .AllowIf(SCMP_SYS(mprotect), {Masked(2, PROT_EXEC, 0)})
      .Allow({SCMP_SYS(futex),
              SCMP_SYS(read),
              SCMP_SYS(write),
              SCMP_SYS(readv),
              SCMP_SYS(writev),
              SCMP_SYS(pread64),
              SCMP_SYS(pwrite64),
              SCMP_SYS(preadv),
              SCMP_SYS(pwritev),
              SCMP_SYS(preadv2),
              SCMP_SYS(pwritev2),
              SCMP_SYS(munmap),
              SCMP_SYS(mremap),
              SCMP_SYS(madvise),
              SCMP_SYS(brk),
              SCMP_SYS(rt_sigprocmask),
              SCMP_SYS(rt_sigreturn),
              SCMP_SYS(rt_sigaction),
              SCMP_SYS(sigaltstack),
              SCMP_SYS(sched_yield),
              SCMP_SYS(nanosleep),
              SCMP_SYS(clock_nanosleep),
              SCMP_SYS(clock_gettime),
              SCMP_SYS(gettimeofday),
              SCMP_SYS(getpid),
              SCMP_SYS(gettid),
              SCMP_SYS(tgkill),
              SCMP_SYS(exit),
              SCMP_SYS(exit_group),
              SCMP_SYS(set_robust_list),
              SCMP_SYS(rseq),
              SCMP_SYS(getrandom),
              SCMP_SYS(close),
              SCMP_SYS(lseek),
              SCMP_SYS(fstat),
              SCMP_SYS(newfstatat),
              SCMP_SYS(fcntl),
              SCMP_SYS(openat),
              SCMP_SYS(poll),
              SCMP_SYS(ppoll),
              SCMP_SYS(epoll_ctl),
              SCMP_SYS(seccomp),
              SCMP_SYS(prctl),
              SCMP_SYS(fallocate),
              SCMP_SYS(sysinfo),
              SCMP_SYS(restart_syscall),
              SCMP_SYS(sched_getaffinity)});
}

// A machine's event loop: devices, the control socket, snapshots.
void AddMachine(List* list) {
  AddVcpu(list);
  for (uint64_t request : kTapIoctls) list->AllowIf(SCMP_SYS(ioctl), {Equal(1, request)});
  // Threads and plain forks. Of clone3(2)'s flags a program of seccomp sees nothing: libc does
  // without it.
  list->AllowIf(SCMP_SYS(clone), {Masked(0, kNewNamespaces, 0)})
      .Deny(SCMP_SYS(clone3), ENOSYS)
      .AllowIf(SCMP_SYS(socket), {Equal(0, AF_UNIX)})
      .AllowIf(SCMP_SYS(socketpair), {Equal(0, AF_UNIX)})
      .Allow({SCMP_SYS(connect),
              SCMP_SYS(accept4),
              SCMP_SYS(bind),
              SCMP_SYS(listen),
              SCMP_SYS(sendto),
              SCMP_SYS(recvfrom),
              SCMP_SYS(sendmsg),
              SCMP_SYS(recvmsg),
              SCMP_SYS(shutdown),
              SCMP_SYS(getsockname),
              SCMP_SYS(getpeername),
              SCMP_SYS(getsockopt),
              SCMP_SYS(setsockopt),
              SCMP_SYS(epoll_create1),
              SCMP_SYS(epoll_wait),
              SCMP_SYS(epoll_pwait),
              SCMP_SYS(epoll_pwait2),
              SCMP_SYS(eventfd2),
              SCMP_SYS(signalfd4),
              SCMP_SYS(timerfd_create),
              SCMP_SYS(timerfd_settime),
              SCMP_SYS(timerfd_gettime),
              SCMP_SYS(pipe2),
              SCMP_SYS(dup),
              SCMP_SYS(dup2),
              SCMP_SYS(dup3),
              SCMP_SYS(close_range),
              SCMP_SYS(wait4),
              SCMP_SYS(kill),
              SCMP_SYS(getppid),
              SCMP_SYS(setsid),
              SCMP_SYS(set_tid_address),
              SCMP_SYS(open),
              SCMP_SYS(stat),
              SCMP_SYS(lstat),
              SCMP_SYS(statx),
              SCMP_SYS(access),
              SCMP_SYS(faccessat),
              SCMP_SYS(faccessat2),
              SCMP_SYS(getdents64),
              SCMP_SYS(readlink),
              SCMP_SYS(readlinkat),
              SCMP_SYS(getcwd),
              SCMP_SYS(mkdir),
              SCMP_SYS(mkdirat),
              SCMP_SYS(rmdir),
              SCMP_SYS(unlink),
              SCMP_SYS(unlinkat),
              SCMP_SYS(rename),
              SCMP_SYS(renameat),
              SCMP_SYS(renameat2),
              SCMP_SYS(chmod),
              SCMP_SYS(fchmod),
              SCMP_SYS(fchmodat),
              SCMP_SYS(umask),
              SCMP_SYS(ftruncate),
              SCMP_SYS(fsync),
              SCMP_SYS(fdatasync),
              SCMP_SYS(sync_file_range),
              SCMP_SYS(fadvise64),
              SCMP_SYS(copy_file_range),
              SCMP_SYS(flock),
              SCMP_SYS(statfs),
              SCMP_SYS(fstatfs),
              SCMP_SYS(uname),
              SCMP_SYS(getuid),
              SCMP_SYS(geteuid),
              SCMP_SYS(getgid),
              SCMP_SYS(getegid),
              SCMP_SYS(getrlimit),
              SCMP_SYS(sched_setscheduler),
              SCMP_SYS(sched_getparam),
              SCMP_SYS(mincore)})
      // Volumes (devices/fs): what their files are asked and told.
      .Allow({SCMP_SYS(openat2), SCMP_SYS(mknodat), SCMP_SYS(symlinkat), SCMP_SYS(linkat),
              SCMP_SYS(utimensat), SCMP_SYS(getxattr), SCMP_SYS(setxattr), SCMP_SYS(listxattr),
              SCMP_SYS(removexattr)})
      .AllowIf(SCMP_SYS(prlimit64), {Equal(0, 0)});
}

void AddDisk(List* list) {
  list->Allow({SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register)});
}

// What puts clones into their jails, and what a program's start takes.
void AddZygote(List* list) {
  constexpr uint64_t kCloneNamespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;
  list->AllowIf(SCMP_SYS(unshare), {Equal(0, kCloneNamespaces)})
      .Allow({SCMP_SYS(move_mount), SCMP_SYS(setgroups), SCMP_SYS(setresgid), SCMP_SYS(setresuid),
              SCMP_SYS(capset), SCMP_SYS(setrlimit), SCMP_SYS(execveat), SCMP_SYS(arch_prctl)})
      .AllowIf(SCMP_SYS(prlimit64), {Equal(0, 0)});
}

Status Check(int failed) {
  if (failed == 0) return OkStatus();
  return Errorf("libseccomp: %s", strerror(-failed));
}

}  // namespace

Result<std::string> CompileFilter(FilterKind kind) {
  Context context(seccomp_init(SCMP_ACT_KILL_PROCESS));
  if (context == nullptr) return Errorf("libseccomp: no memory");
  List list(context.get());
  if (kind == FilterKind::kVcpu) AddVcpu(&list);
  if (kind != FilterKind::kVcpu) AddMachine(&list);
  if (kind == FilterKind::kMachineWithDisk || kind == FilterKind::kZygote) AddDisk(&list);
  if (kind == FilterKind::kZygote) AddZygote(&list);
  CUBE_TRY(Check(list.failed()));
  // A binary tree: every entry of a vCPU goes through it.
  CUBE_TRY(Check(seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2)));
  UniqueFd file(memfd_create("seccomp", MFD_CLOEXEC));
  if (!file.valid()) return ErrnoError("memfd_create");
  CUBE_TRY(Check(seccomp_export_bpf(context.get(), file.get())));
  CUBE_ASSIGN(uint64_t size, RegularFileSize(file.get(), "a seccomp program"));
  std::string program(size, '\0');
  CUBE_TRY(ReadExactAt(file.get(), {reinterpret_cast<uint8_t*>(program.data()), size}, 0,
                       "a seccomp program"));
  return program;
}

}  // namespace cube::pool
