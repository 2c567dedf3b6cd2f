#include "devices/fs/host_file.h"

#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>

namespace cube::devices::fs {
namespace {

constexpr uint64_t kBeneath = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;

int OpenBeneath(int dir, const char* path, int flags, mode_t mode, UniqueFd* out) {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC);
  how.mode = mode;
  how.resolve = kBeneath;
  long fd = syscall(SYS_openat2, dir, path, &how, sizeof how);
  // EAGAIN: the kernel could not rule out that a rename on the host led outside. Once more is
  // enough for all but a storm of renames.
  if (fd < 0 && errno == EAGAIN) fd = syscall(SYS_openat2, dir, path, &how, sizeof how);
  if (fd < 0) return HostError();
  out->Reset(static_cast<int>(fd));
  return 0;
}

}  // namespace

FileId IdOf(const struct statx& stat) {
  FileId id = {makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino, 0};
  if ((stat.stx_mask & STATX_BTIME) != 0) {
    id.birth =
        static_cast<uint64_t>(stat.stx_btime.tv_sec) * 1'000'000'000 + stat.stx_btime.tv_nsec;
  }
  return id;
}

int HostError() { return errno == EMFILE ? ENFILE : errno; }

int CheckName(const std::string& name) {
  if (name.size() > NAME_MAX) return ENAMETOOLONG;
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) {
    return EINVAL;
  }
  return 0;
}

int StatFile(int fd, struct statx* stat) {
  int error =
      statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, stat);
  return error < 0 ? HostError() : 0;
}

int OpenPath(int dir, const char* path, UniqueFd* out) {
  return OpenBeneath(dir, path, O_PATH | O_NOFOLLOW, 0, out);
}

int CreateFile(int dir, const char* name, int flags, mode_t mode, UniqueFd* out) {
  return OpenBeneath(dir, name, flags | O_CREAT | O_EXCL | O_NOFOLLOW, mode, out);
}

int OpenRegular(int path_fd, int flags, UniqueFd* out) {
  struct statx stat;
  CUBE_FS_TRY(StatFile(path_fd, &stat));
  if (S_ISDIR(stat.stx_mode)) return EISDIR;
  if (S_ISLNK(stat.stx_mode)) return ELOOP;
  if (!S_ISREG(stat.stx_mode)) return ENXIO;
  // The descriptor stays with the inode, whose type does not change: what was checked is opened.
  int fd = open(ProcPath(path_fd).c_str(), flags | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return HostError();
  out->Reset(fd);
  return 0;
}

int OpenDirectory(int path_fd, UniqueFd* out) {
  int fd = open(ProcPath(path_fd).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return HostError();
  out->Reset(fd);
  return 0;
}

int PathFdOf(int fd, UniqueFd* out) {
  int path_fd = open(ProcPath(fd).c_str(), O_PATH | O_CLOEXEC);
  if (path_fd < 0) return HostError();
  out->Reset(path_fd);
  return 0;
}

ProcPath::ProcPath(int fd) { snprintf(text_, sizeof text_, "/proc/self/fd/%d", fd); }

int PathOf(int fd, std::string* out) {
  char buffer[PATH_MAX];
  ssize_t size = readlink(ProcPath(fd).c_str(), buffer, sizeof buffer);
  if (size < 0) return HostError();
  if (size == sizeof buffer) return ENAMETOOLONG;
  out->assign(buffer, static_cast<size_t>(size));
  return 0;
}

int ClearPrivileges(int fd) {
  struct statx stat;
  CUBE_FS_TRY(StatFile(fd, &stat));
  mode_t clear = stat.stx_mode & S_ISUID;
  // Without S_IXGRP the bit means mandatory locking, not a privilege.
  if ((stat.stx_mode & S_IXGRP) != 0) clear |= stat.stx_mode & S_ISGID;
  if (clear == 0) return 0;
  return fchmod(fd, static_cast<mode_t>(stat.stx_mode & 07777) & ~clear) < 0 ? HostError() : 0;
}

}  // namespace cube::devices::fs
