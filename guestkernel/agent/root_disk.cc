#include "guestkernel/agent/root_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <string>
#include <utility>

#include "base/byte_io.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/mounts.h"
#include "guestkernel/agent/root_option.h"

namespace cube::agent {
namespace {

constexpr char kNewRoot[] = "/newroot";

Status MountRoot(const RootOption& root) {
  if (mkdir(kNewRoot, 0700) < 0 && errno != EEXIST) return ErrnoError("cannot make %s", kNewRoot);
  // Without access times a program that only reads leaves the disk, and the overlay under it,
  // alone.
  // Times of files are written with what else is: each clone writes its name to /etc/hosts, which
  // would be a transaction of the journal in each for the time of it alone.
  unsigned long flags = MS_NOATIME | MS_LAZYTIME;
  if (root.read_only) flags |= MS_RDONLY;
  if (mount(root.device.c_str(), kNewRoot, "ext4", flags, nullptr) == 0) return OkStatus();
  if (errno == ENOENT) return Errorf("there is no disk %s to be the root", root.device.c_str());
  return ErrnoError("cannot mount %s as the root, ext4", root.device.c_str());
}

Status Move(const char* from, const std::string& to) {
  if (mount(from, to.c_str(), nullptr, MS_MOVE, nullptr) == 0) return OkStatus();
  return ErrnoError("cannot move %s to %s", from, to.c_str());
}

// Removes what is in `folder`, whose descriptor this takes over. What cannot be removed stays: it
// is only memory.
void RemoveContent(UniqueFd folder) {
  DIR* entries = fdopendir(folder.get());
  if (entries == nullptr) return;
  const int fd = folder.Release();  // closedir() closes it
  while (const dirent* entry = readdir(entries)) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (unlinkat(fd, name.c_str(), 0) == 0 || errno != EISDIR) continue;
    RemoveContent(UniqueFd(openat(fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
    unlinkat(fd, name.c_str(), AT_REMOVEDIR);
  }
  closedir(entries);
}

Status SwitchRoot() {
  CUBE_ASSIGN(UniqueFd initramfs, OpenFile("/", O_RDONLY | O_DIRECTORY));
  CUBE_TRY(Move("/dev", std::string(kNewRoot) + "/dev"));
  CUBE_TRY(Move("/proc", std::string(kNewRoot) + "/proc"));
  // The initramfs cannot be unmounted, and pivot_root(2) refuses it: the disk is put over it.
  if (chdir(kNewRoot) < 0) return ErrnoError("cannot enter %s", kNewRoot);
  CUBE_TRY(Move(".", "/"));
  if (chroot(".") < 0 || chdir("/") < 0) return ErrnoError("cannot make the root disk the root");
  // Nothing is mounted below the old root any more, so this reaches the initramfs's files only.
  RemoveContent(std::move(initramfs));
  return OkStatus();
}

}  // namespace

Status EnterRoot() {
  CUBE_TRY(MountProc());
  CUBE_ASSIGN(std::string command_line, ReadSmallFile("/proc/cmdline"));
  CUBE_ASSIGN(std::optional<RootOption> root, ParseRootOption(command_line));
  if (!root.has_value()) return OkStatus();
  CUBE_TRY(MountRoot(*root));
  CUBE_TRY(SwitchRoot());
  return root->read_only ? MountTmp() : OkStatus();
}

}  // namespace cube::agent
