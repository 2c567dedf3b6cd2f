#include "pool/jail/volume_mount.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "pool/jail/place.h"

namespace cube::pool {
namespace {

// A child in a user namespace of its own, until this is gone.
class NamespaceHolder {
 public:
  static Result<NamespaceHolder> Start() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return ErrnoError("pipe");
    UniqueFd reader(ends[0]), writer(ends[1]);
    // As fork(2), which cannot make namespaces. The child calls nothing but the kernel.
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
    if (pid == 0) {
      char word;
      close(writer.get());
      while (read(reader.get(), &word, 1) < 0 && errno == EINTR) {
      }
      _exit(0);
    }
    if (pid < 0) return ErrnoError("making a user namespace");
    return NamespaceHolder(static_cast<pid_t>(pid), std::move(writer));
  }
  NamespaceHolder(NamespaceHolder&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)), writer_(std::move(other.writer_)) {}
  NamespaceHolder& operator=(NamespaceHolder&&) = delete;
  ~NamespaceHolder() {
    if (pid_ < 0) return;
    writer_.Reset();
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  Status Map(const char* file, uint32_t inside, uint32_t outside) const {
    const std::string line = Format("%u %u 1", inside, outside);
    CUBE_ASSIGN(UniqueFd map, OpenFile(Format("/proc/%d/%s", pid_, file), O_WRONLY));
    if (write(map.get(), line.data(), line.size()) < 0) return ErrnoError("%s", file);
    return OkStatus();
  }
  Result<UniqueFd> Open() const { return OpenFile(Format("/proc/%d/ns/user", pid_), O_RDONLY); }

 private:
  NamespaceHolder(pid_t pid, UniqueFd writer) : pid_(pid), writer_(std::move(writer)) {}

  pid_t pid_;
  UniqueFd writer_;
};

Result<UniqueFd> MapOf(const struct stat& owner, uid_t user) {
  CUBE_ASSIGN(NamespaceHolder holder, NamespaceHolder::Start());
  CUBE_TRY(holder.Map("uid_map", owner.st_uid, user));
  CUBE_TRY(holder.Map("gid_map", owner.st_gid, user));
  return holder.Open();
}

}  // namespace

Result<UniqueFd> MountVolume(const std::string& path, uid_t user) {
  CUBE_ASSIGN(UniqueFd place, OpenNoLinks(path, O_PATH | O_DIRECTORY));
  struct stat owner;
  if (fstat(place.get(), &owner) < 0) return ErrnoError("%s", path.c_str());
  UniqueFd tree(static_cast<int>(syscall(SYS_open_tree, place.get(), "",
                                         OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)));
  if (!tree.valid()) return ErrnoError("a mount of %s", path.c_str());
  CUBE_ASSIGN(UniqueFd map, MapOf(owner, user));
  mount_attr attributes = {};
  attributes.attr_set = MOUNT_ATTR_IDMAP | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                        MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW;
  attributes.userns_fd = static_cast<uint64_t>(map.get());
  if (syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) <
      0) {
    if (errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS) {
      return ErrnoError("a mount of %s for user %u", path.c_str(), user);
    }
    return Errorf(
        "%s is on a file system, or this is a kernel, without idmapped mounts (Linux 5.12; ext4, "
        "xfs, btrfs, tmpfs): sandboxes cannot have volumes here",
        path.c_str());
  }
  return tree;
}

}  // namespace cube::pool
