#include "pool/process_handle.h"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "base/byte_io.h"

namespace cube::pool {
namespace {

// PIDFD_GET_INFO of Linux 6.13, whose exit code came with 6.15 (include/uapi/linux/pidfd.h); not in
// Debian 12's headers.
struct PidfdInfo {
  uint64_t mask;
  uint64_t cgroup_id;
  uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
  int32_t exit_code;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr unsigned long kPidfdGetInfo = _IOWR(0xff, 11, PidfdInfo);
constexpr uint64_t kPidfdInfoExit = 1 << 3;

// What a parent that does nothing else needs at most, on a busy host.
constexpr int kReapMs = 50;

// The fields behind the name in parentheses, which may hold anything.
Result<uint64_t> StartTicks(pid_t pid) {
  constexpr int kFieldsBefore = 19;  // from state (3) to starttime (22)
  CUBE_ASSIGN(std::string text, ReadSmallFile(Format("/proc/%d/stat", pid)));
  size_t place = text.rfind(')');
  for (int i = 0; i <= kFieldsBefore && place != std::string::npos; ++i) {
    place = text.find(' ', place + 1);
  }
  if (place == std::string::npos) return Errorf("/proc/%d/stat has another form", pid);
  return strtoull(text.c_str() + place + 1, nullptr, 10);
}

}  // namespace

Result<ProcessHandle> ProcessHandle::Open(pid_t pid) {
  ProcessHandle handle;
  handle.pid_ = pid;
  handle.fd_.Reset(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!handle.fd_.valid()) return ErrnoError("process %d", pid);
  // Read while the descriptor is there: the pid is still the same process's, or it has ended.
  CUBE_ASSIGN(handle.start_ticks_, StartTicks(pid));
  if (!handle.Alive()) return Errorf("process %d has ended", pid);
  return handle;
}

bool ProcessHandle::Alive() const {
  if (!fd_.valid()) return false;
  pollfd one = {fd_.get(), POLLIN, 0};
  return poll(&one, 1, 0) == 0;
}

void ProcessHandle::Kill() const {
  if (fd_.valid()) (void)syscall(SYS_pidfd_send_signal, fd_.get(), SIGKILL, nullptr, 0);
}

std::string ProcessHandle::HowItEnded() const {
  if (!fd_.valid() || Alive()) return "";
  siginfo_t end = {};
  if (waitid(P_PIDFD, static_cast<id_t>(fd_.get()), &end, WEXITED | WNOWAIT | WNOHANG) == 0) {
    if (end.si_pid == 0) return "";
    if (end.si_code == CLD_EXITED) return Format("exit status %d", end.si_status);
    return Format("killed by signal %d", end.si_status);
  }
  // Another's child: the kernel says it once that one has waited for it, which is told by POLLHUP.
  pollfd waited_for = {fd_.get(), 0, 0};
  poll(&waited_for, 1, kReapMs);
  PidfdInfo info = {};
  info.mask = kPidfdInfoExit;
  if (ioctl(fd_.get(), kPidfdGetInfo, &info) < 0) return "";
  if ((info.mask & kPidfdInfoExit) == 0) return "";
  if (WIFSIGNALED(info.exit_code)) return Format("killed by signal %d", WTERMSIG(info.exit_code));
  return Format("exit status %d", WEXITSTATUS(info.exit_code));
}

std::string BootId() {
  auto text = ReadSmallFile("/proc/sys/kernel/random/boot_id");
  return text.ok() ? text->substr(0, text->find('\n')) : "";
}

}  // namespace cube::pool
