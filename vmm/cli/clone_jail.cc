#include "vmm/cli/clone_jail.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <iterator>

namespace cube::vmm {
namespace {

constexpr uint32_t kMaxUid = 1 << 24;
constexpr uint64_t kMaxCgroups = 8;
// Threads and the processes that write snapshots.
constexpr rlim_t kMaxProcesses = 64;

}  // namespace

const int kCloneNamespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;

Result<CloneJail> CloneJail::Of(const ControlRequest& request, std::vector<UniqueFd>* descriptors) {
  CloneJail jail;
  CUBE_ASSIGN(uint64_t uid, request.Number("uid", 0, kMaxUid));
  if (uid == 0) return jail;
  CUBE_ASSIGN(uint64_t cgroups, request.Number("cgroups", 0, kMaxCgroups));
  if (descriptors->size() < cgroups + 1) {
    return Errorf("a jail with %llu cgroups: %zu descriptors came with the request",
                  static_cast<unsigned long long>(cgroups), descriptors->size());
  }
  auto first = descriptors->end() - static_cast<ptrdiff_t>(cgroups + 1);
  jail.uid = static_cast<uint32_t>(uid);
  jail.box = std::move(*first);
  jail.cgroups.assign(std::move_iterator(first + 1), std::move_iterator(descriptors->end()));
  descriptors->erase(first, descriptors->end());
  return jail;
}

Status CloneJail::JoinCgroups() {
  for (const UniqueFd& procs : cgroups) {
    if (write(procs.get(), "0", 1) != 1) return ErrnoError("joining a cgroup");
  }
  cgroups.clear();
  return OkStatus();
}

Status CloneJail::DropPrivileges() const {
  const rlimit processes = {kMaxProcesses, kMaxProcesses};
  if (setrlimit(RLIMIT_NPROC, &processes) < 0) return ErrnoError("the limit of processes");
  for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability) {
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
      return ErrnoError("capability %d", capability);
  }
  if (setgroups(0, nullptr) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0) {
    return ErrnoError("becoming user %u", uid);
  }
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  if (syscall(SYS_capset, &header, none) < 0) return ErrnoError("dropping capabilities");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return ErrnoError("no_new_privs");
  // Its own /proc/self is its own again: what it has written is found there.
  if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0) return ErrnoError("dumpable");
  return OkStatus();
}

Status CloneJail::Enter() {
  CUBE_TRY(JoinCgroups());
  if (unshare(kCloneNamespaces) < 0) return ErrnoError("making namespaces");
  pid_t child = fork();
  if (child < 0) return ErrnoError("fork");
  if (child > 0) _exit(0);
  (void)setsid();
  const char* home = getenv("CUBE_CLONE_HOME");
  if (home == nullptr) return Errorf("CUBE_CLONE_HOME is not set");
  if (syscall(SYS_move_mount, box.get(), "", AT_FDCWD, home, MOVE_MOUNT_F_EMPTY_PATH) < 0) {
    return ErrnoError("mounting %s", home);
  }
  if (setenv("CUBE_HOME", home, 1) < 0) return ErrnoError("setenv");
  box.Reset();
  return DropPrivileges();
}

}  // namespace cube::vmm
