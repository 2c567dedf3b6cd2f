#include "pool/jail/enter.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/byte_io.h"
#include "pool/jail/place.h"
#include "vmm/syscall_filter.h"

namespace cube::pool {
namespace {

using ::cube::vmm::SyscallFilter;

// What a zygote keeps, within its user namespace.
constexpr int kZygoteCapabilities[] = {CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_SYS_ADMIN};

struct Limit {
  __rlimit_resource kind;
  rlim_t most;
};
constexpr Limit kLimits[] = {
    {RLIMIT_CORE, 0},
    {RLIMIT_NOFILE, 4096},
    {RLIMIT_FSIZE, rlim_t{1} << 40},
    {RLIMIT_MEMLOCK, rlim_t{8} << 20},
    {RLIMIT_MSGQUEUE, 0},
    {RLIMIT_NPROC, 256},
};

Status MakeDevice(const std::string& path, const char* like, uid_t owner, mode_t mode) {
  struct stat info;
  if (stat(like, &info) < 0) return ErrnoError("%s", like);
  if (mknod(path.c_str(), S_IFCHR | mode, info.st_rdev) < 0 ||
      chown(path.c_str(), owner, owner) < 0 || chmod(path.c_str(), mode) < 0) {
    return ErrnoError("%s", path.c_str());
  }
  return OkStatus();
}

Status MakeRoot(const JailPlan& plan) {
  const std::string& root = plan.root;
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) return ErrnoError("mount /");
  if (mount("jail", root.c_str(), "tmpfs", MS_NOSUID | MS_NOEXEC, "size=1m,mode=0755") < 0) {
    return ErrnoError("mounting %s", root.c_str());
  }
  for (const char* folder : {"/dev", "/proc"}) {
    if (mkdir((root + folder).c_str(), 0755) < 0) return ErrnoError("%s", folder);
  }
  CUBE_TRY(MakeDevice(root + "/dev/null", "/dev/null", 0, 0666));
  CUBE_TRY(MakeDevice(root + "/dev/kvm", "/dev/kvm", plan.first_uid, 0600));
  // Of its own PID namespace, and there only what belongs to the one who looks.
  if (mount("proc", (root + "/proc").c_str(), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC,
            "hidepid=invisible,subset=pid") < 0) {
    return ErrnoError("mounting /proc");
  }
  for (const std::string& path : plan.visible) CUBE_TRY(ShowBelow(root, path));
  CUBE_ASSIGN(UniqueFd box, OpenTree(plan.box, /*writable=*/true));
  CUBE_TRY(Attach(box.get(), root + plan.box_place, /*is_folder=*/true));
  // Not in its own box: with that, what is mounted there would be gone.
  if (!plan.clone_place.empty()) CUBE_TRY(MakeFolders(root + plan.clone_place + "/"));
  if (chdir(root.c_str()) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
      umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) {
    return ErrnoError("entering %s", root.c_str());
  }
  return OkStatus();
}

bool IsKept(const JailPlan& plan, int capability) {
  if (!plan.is_zygote) return false;
  for (int kept : kZygoteCapabilities) {
    if (kept == capability) return true;
  }
  return false;
}

Status DropPrivileges(const JailPlan& plan) {
  for (const Limit& limit : kLimits) {
    // Who started this may have less, and in a user namespace it cannot become more.
    rlimit own = {};
    if (getrlimit(limit.kind, &own) < 0) return ErrnoError("getrlimit %d", limit.kind);
    const rlim_t most = std::min(limit.most, own.rlim_max);
    const rlimit both = {most, most};
    if (setrlimit(limit.kind, &both) < 0) return ErrnoError("setrlimit %d", limit.kind);
  }
  for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability) {
    if (IsKept(plan, capability)) continue;
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
      return ErrnoError("dropping capability %d", capability);
    }
  }
  const uid_t id = plan.first_inside;
  if (setgroups(0, nullptr) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0) {
    return ErrnoError("becoming user %u", id);
  }
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2] = {};
  if (plan.is_zygote) {
    for (int kept : kZygoteCapabilities) {
      auto& set = sets[CAP_TO_INDEX(kept)];
      set.permitted |= CAP_TO_MASK(kept);
      set.effective |= CAP_TO_MASK(kept);
    }
  }
  if (syscall(SYS_capset, &header, sets) < 0) return ErrnoError("dropping capabilities");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return ErrnoError("no_new_privs");
  return OkStatus();
}

// The kernel's copy of a program's words.
std::vector<char*> Words(const std::vector<std::string>& strings) {
  std::vector<char*> words;
  for (const std::string& one : strings) words.push_back(const_cast<char*>(one.c_str()));
  words.push_back(nullptr);
  return words;
}

Status PassDescriptors(const UniqueFd& machine, const UniqueFd& vcpu) {
  // Both above where they are put, whatever was free when they were opened.
  constexpr int kAbove = 24;
  UniqueFd first(fcntl(machine.get(), F_DUPFD_CLOEXEC, kAbove));
  UniqueFd second(fcntl(vcpu.get(), F_DUPFD_CLOEXEC, kAbove));
  if (dup2(first.get(), kMachineFilterFd) < 0 || dup2(second.get(), kVcpuFilterFd) < 0) {
    return ErrnoError("dup2");
  }
  return OkStatus();
}

Status Prepare(const JailPlan& plan, JailGate* gate, UniqueFd* program, SyscallFilter* filter,
               UniqueFd* machine, UniqueFd* vcpu) {
  CUBE_ASSIGN(UniqueFd own_filter, OpenFile(plan.program_filter, O_RDONLY));
  CUBE_ASSIGN(*filter, SyscallFilter::Read(own_filter.get()));
  CUBE_ASSIGN(*machine, OpenFile(plan.machine_filter, O_RDONLY));
  CUBE_ASSIGN(*vcpu, OpenFile(plan.vcpu_filter, O_RDONLY));
  CUBE_ASSIGN(UniqueFd opened, OpenFile(plan.program, O_PATH));
  // Away from the descriptors that the program is to find.
  program->Reset(fcntl(opened.get(), F_DUPFD_CLOEXEC, 32));
  CUBE_TRY(JoinCgroups(plan.cgroups));
  if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0) {
    return ErrnoError("making namespaces");
  }
  if (sethostname("cube", 4) < 0) return ErrnoError("sethostname");
  CUBE_TRY(MakeRoot(plan));
  if (unshare(CLONE_NEWUSER) < 0) return ErrnoError("making a user namespace");
  char word = 0;
  if (write(gate->inside.get(), "u", 1) != 1 || read(gate->inside.get(), &word, 1) != 1) {
    return Errorf("its users could not be mapped");
  }
  return OkStatus();
}

}  // namespace

Status JoinCgroups(const std::vector<std::string>& folders) {
  for (const std::string& folder : folders) {
    CUBE_ASSIGN(UniqueFd procs, OpenFile(folder + "/cgroup.procs", O_WRONLY));
    if (write(procs.get(), "0", 1) != 1) return ErrnoError("joining %s", folder.c_str());
  }
  return OkStatus();
}

Result<JailGate> JailGate::Make() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return ErrnoError("socketpair");
  JailGate gate;
  gate.inside.Reset(ends[0]);
  gate.outside.Reset(ends[1]);
  const int on = 1;
  if (setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0) {
    return ErrnoError("SO_PASSCRED");
  }
  return gate;
}

Error EnterJail(const JailPlan& plan, JailGate gate) {
  (void)setsid();
  umask(022);
  gate.outside.Reset();
  UniqueFd program, machine, vcpu;
  SyscallFilter filter;
  Status done = Prepare(plan, &gate, &program, &filter, &machine, &vcpu);
  if (!done.ok()) return done.error();
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (dup2(null.get(), STDIN_FILENO) < 0) return ErrnoError("/dev/null");
  done = DropPrivileges(plan);
  if (done.ok()) done = PassDescriptors(machine, vcpu);
  if (!done.ok()) return done.error();
  close_range(kVcpuFilterFd + 1, ~0u, CLOSE_RANGE_CLOEXEC);
  std::vector<char*> arguments = Words(plan.arguments), environment = Words(plan.environment);
  done = filter.Apply();
  if (!done.ok()) return done.error();
  syscall(SYS_execveat, program.get(), "", arguments.data(), environment.data(), AT_EMPTY_PATH);
  return ErrnoError("%s", plan.program.c_str());
}

Result<pid_t> MapUsers(const JailPlan& plan, JailGate* gate) {
  gate->inside.Reset();
  // The kernel says who it is, in the terms of this PID namespace.
  char word = 0;
  iovec data = {&word, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n = recvmsg(gate->outside.get(), &message, 0);
  const cmsghdr* header = n == 1 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_type != SCM_CREDENTIALS) return Errorf("it has ended");
  ucred sender;
  memcpy(&sender, CMSG_DATA(header), sizeof sender);
  const std::string line = Format("%u %u %u", plan.first_inside, plan.first_uid, plan.uids);
  for (const char* map : {"uid_map", "gid_map"}) {
    CUBE_ASSIGN(UniqueFd file, OpenFile(Format("/proc/%d/%s", sender.pid, map), O_WRONLY));
    if (write(file.get(), line.data(), line.size()) < 0) return ErrnoError("%s", map);
  }
  return sender.pid;
}

Status OpenGate(const JailGate& gate) {
  if (send(gate.outside.get(), "m", 1, MSG_NOSIGNAL) != 1) return ErrnoError("it has ended");
  return OkStatus();
}

}  // namespace cube::pool
