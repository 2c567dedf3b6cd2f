#include "guestkernel/agent/mounts.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "guestkernel/agent/log.h"

namespace cube::agent {
namespace {

struct Mount {
  const char* type;
  const char* target;
  unsigned long flags;
  const char* options;
};

constexpr Mount kProc = {"proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr};
constexpr Mount kDev = {"devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=0755"};

constexpr Mount kTmp = {"tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777"};

// /tmp is not among them: with a root in memory a second file system in memory would gain nothing,
// and on a root disk programs put more into it than memory should hold.
constexpr Mount kRest[] = {
    {"sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr},
    {"cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr},
    {"devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
    {"tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"},
    {"tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755"},
};

struct Link {
  const char* target;
  const char* path;
};

constexpr Link kLinks[] = {
    {"/proc/self/fd", "/dev/fd"},
    {"/proc/self/fd/0", "/dev/stdin"},
    {"/proc/self/fd/1", "/dev/stdout"},
    {"/proc/self/fd/2", "/dev/stderr"},
};

Status Do(const Mount& m) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (mount(m.type, m.target, m.type, m.flags, m.options) == 0) return OkStatus();
    if (errno == EBUSY) return OkStatus();  // mounted already
    if (errno != ENOENT || attempt > 0) break;
    // A mount point is only made when it turns out to be missing.
    if (mkdir(m.target, 0755) < 0) return ErrnoError("cannot make %s", m.target);
  }
  return ErrnoError("cannot mount %s on %s", m.type, m.target);
}

}  // namespace

Status MountDev() { return Do(kDev); }

Status MountProc() { return Do(kProc); }

Status MountTmp() { return Do(kTmp); }

void MountRest() {
  for (const Mount& m : kRest) {
    Status status = Do(m);
    if (!status.ok()) Log(status.error().message());
  }
  for (const Link& link : kLinks) {
    if (symlink(link.target, link.path) < 0 && errno != EEXIST) {
      Log(ErrnoError("cannot make %s", link.path).message());
    }
  }
}

}  // namespace cube::agent
