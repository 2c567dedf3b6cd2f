#include "pool/jail/place.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace cube::pool {
Result<UniqueFd> OpenNoLinks(const std::string& path, int flags) {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
  how.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  UniqueFd fd(static_cast<int>(syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how)));
  if (!fd.valid()) return ErrnoError("cannot open %s", path.c_str());
  return fd;
}

Result<UniqueFd> OpenTree(const std::string& path, bool writable) {
  CUBE_ASSIGN(UniqueFd place, OpenNoLinks(path, O_PATH));
  UniqueFd tree(static_cast<int>(syscall(SYS_open_tree, place.get(), "",
                                         OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)));
  if (!tree.valid()) return ErrnoError("a mount of %s", path.c_str());
  mount_attr attributes = {};
  attributes.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  if (!writable) attributes.attr_set |= MOUNT_ATTR_RDONLY;
  if (syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) <
      0) {
    return ErrnoError("a mount of %s", path.c_str());
  }
  return tree;
}

Status MakeFolders(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    if (mkdir(path.substr(0, slash).c_str(), 0755) < 0 && errno != EEXIST) {
      return ErrnoError("making %s", path.substr(0, slash).c_str());
    }
  }
  return OkStatus();
}

Status Attach(int tree, const std::string& place, bool is_folder) {
  CUBE_TRY(MakeFolders(place));
  if (is_folder) {
    if (mkdir(place.c_str(), 0755) < 0 && errno != EEXIST) {
      return ErrnoError("making %s", place.c_str());
    }
  } else {
    CUBE_ASSIGN(UniqueFd file, OpenFile(place, O_WRONLY | O_CREAT, 0644));
  }
  if (syscall(SYS_move_mount, tree, "", AT_FDCWD, place.c_str(), MOVE_MOUNT_F_EMPTY_PATH) < 0) {
    return ErrnoError("mounting %s", place.c_str());
  }
  return OkStatus();
}

Status ShowBelow(const std::string& root, const std::string& path) {
  // A file of a folder that is visible is so, too.
  struct stat info, seen;
  if (stat(path.c_str(), &info) < 0) return ErrnoError("%s", path.c_str());
  if (stat((root + path).c_str(), &seen) == 0 && seen.st_dev == info.st_dev &&
      seen.st_ino == info.st_ino) {
    return OkStatus();
  }
  CUBE_ASSIGN(UniqueFd tree, OpenTree(path, /*writable=*/false));
  return Attach(tree.get(), root + path, S_ISDIR(info.st_mode));
}

Status ShowTo(pid_t process, const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) < 0) return ErrnoError("%s", path.c_str());
  CUBE_ASSIGN(UniqueFd tree, OpenTree(path, /*writable=*/false));
  CUBE_ASSIGN(UniqueFd space, OpenFile(Format("/proc/%d/ns/mnt", process), O_RDONLY));
  if (setns(space.get(), CLONE_NEWNS) < 0) return ErrnoError("entering the jail of %d", process);
  struct stat seen;
  if (stat(path.c_str(), &seen) == 0 && seen.st_dev == info.st_dev && seen.st_ino == info.st_ino) {
    return OkStatus();
  }
  return Attach(tree.get(), path, S_ISDIR(info.st_mode));
}

}  // namespace cube::pool
