// Requests that name something within a directory.
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <utility>

#include "devices/fs/fuse_server.h"

namespace cube::devices::fs {
namespace {

// The set-user-ID and set-group-ID bits are left out without an error, as chmod(2) may do: a guest
// must not make programs that give their callers on the host another user's power.
constexpr mode_t kModeBits = 01777;

int ResultOf(int value) { return value < 0 ? HostError() : 0; }

}  // namespace

int FuseServer::Lookup(FuseRequest& request, FuseReply& reply) {
  int dir;
  std::string name;
  CUBE_FS_TRY(request.TakeName(&name));
  CUBE_FS_TRY(ReachDirectory(request.header().nodeid, &dir));
  return ReplyEntry(dir, name, reply);
}

int FuseServer::Create(FuseRequest& request, FuseReply& reply) {
  fuse_create_in in;
  std::string name;
  int dir;
  int flags;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(request.TakeName(&name));
  CUBE_FS_TRY(HostFlags(in.flags, &flags));
  CUBE_FS_TRY(ReachDirectory(request.header().nodeid, &dir));
  if (handles_.full()) return ENFILE;
  Inode* inode;
  struct statx stat;
  UniqueFd file;
  int error = CreateFile(dir, name.c_str(), flags & ~O_TRUNC, in.mode & kModeBits, &file);
  if (error == 0) {
    UniqueFd path_fd;
    CUBE_FS_TRY(PathFdOf(file.get(), &path_fd));
    CUBE_FS_TRY(StatFile(path_fd.get(), &stat));
    CUBE_FS_TRY(inodes_.Add(std::move(path_fd), stat, &inode));
  } else if (error == EEXIST && (in.flags & O_EXCL) == 0) {
    // The host has made it since the guest looked. What it is is seen before it is opened.
    CUBE_FS_TRY(inodes_.Lookup(dir, name, &inode, &stat));
    int fd;
    error = inodes_.Reach(inode, &fd);
    if (error == 0) error = OpenRegular(fd, flags, &file);
    if (error != 0) {
      inodes_.Forget(inode->node, 1);
      return error;
    }
    CUBE_FS_TRY(StatFile(file.get(), &stat));
  } else {
    return error;
  }
  reply.Put(Entry(*inode, stat));
  return AddHandle(inode, std::move(file), static_cast<uint32_t>(flags), reply);
}

int FuseServer::MakeDirectory(FuseRequest& request, FuseReply& reply) {
  fuse_mkdir_in in;
  std::string name;
  int dir;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(request.TakeName(&name));
  CUBE_FS_TRY(ReachDirectory(request.header().nodeid, &dir));
  CUBE_FS_TRY(ResultOf(mkdirat(dir, name.c_str(), in.mode & kModeBits)));
  return ReplyEntry(dir, name, reply);
}

int FuseServer::MakeNode(FuseRequest& request, FuseReply& reply) {
  fuse_mknod_in in;
  std::string name;
  int dir;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(request.TakeName(&name));
  mode_t type = in.mode & S_IFMT;
  if (type != 0 && type != S_IFREG && type != S_IFIFO) return EPERM;
  CUBE_FS_TRY(ReachDirectory(request.header().nodeid, &dir));
  CUBE_FS_TRY(ResultOf(mknodat(dir, name.c_str(), type | (in.mode & kModeBits), 0)));
  return ReplyEntry(dir, name, reply);
}

int FuseServer::Unlink(FuseRequest& request, FuseReply&) {
  std::string name;
  int dir;
  CUBE_FS_TRY(request.TakeName(&name));
  CUBE_FS_TRY(ReachDirectory(request.header().nodeid, &dir));
  return ResultOf(unlinkat(dir, name.c_str(), 0));
}

int FuseServer::RemoveDirectory(FuseRequest& request, FuseReply&) {
  std::string name;
  int dir;
  CUBE_FS_TRY(request.TakeName(&name));
  CUBE_FS_TRY(ReachDirectory(request.header().nodeid, &dir));
  return ResultOf(unlinkat(dir, name.c_str(), AT_REMOVEDIR));
}

int FuseServer::Rename(FuseRequest& request, FuseReply&) {
  fuse_rename_in in;
  CUBE_FS_TRY(request.Take(&in));
  return RenameTo(request, in.newdir, 0);
}

int FuseServer::Rename2(FuseRequest& request, FuseReply&) {
  fuse_rename2_in in;
  CUBE_FS_TRY(request.Take(&in));
  // Not RENAME_WHITEOUT: it makes a device node.
  if ((in.flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0) return EINVAL;
  return RenameTo(request, in.newdir, in.flags);
}

int FuseServer::RenameTo(FuseRequest& request, NodeId new_parent, uint32_t flags) {
  std::string old_name;
  std::string new_name;
  int old_dir;
  int new_dir;
  CUBE_FS_TRY(request.TakeName(&old_name));
  CUBE_FS_TRY(request.TakeName(&new_name));
  CUBE_FS_TRY(ReachDirectory(request.header().nodeid, &old_dir));
  CUBE_FS_TRY(ReachDirectory(new_parent, &new_dir));
  return ResultOf(renameat2(old_dir, old_name.c_str(), new_dir, new_name.c_str(), flags));
}

int FuseServer::SymbolicLink(FuseRequest& request, FuseReply& reply) {
  std::string name;
  std::string target;
  int dir;
  CUBE_FS_TRY(request.TakeName(&name));
  CUBE_FS_TRY(request.TakeText(PATH_MAX - 1, &target));
  CUBE_FS_TRY(ReachDirectory(request.header().nodeid, &dir));
  // Wherever it points to: only the guest follows it, among its own files.
  CUBE_FS_TRY(ResultOf(symlinkat(target.c_str(), dir, name.c_str())));
  return ReplyEntry(dir, name, reply);
}

int FuseServer::ReadLink(FuseRequest& request, FuseReply& reply) {
  Inode* inode;
  int fd;
  CUBE_FS_TRY(ReachNode(request.header().nodeid, &inode, &fd));
  if (inode->type != S_IFLNK) return EINVAL;
  char target[PATH_MAX];
  ssize_t size = readlinkat(fd, "", target, sizeof target);
  if (size < 0) return HostError();
  if (static_cast<size_t>(size) > reply.room()) return ENAMETOOLONG;
  reply.PutBytes({reinterpret_cast<uint8_t*>(target), static_cast<size_t>(size)});
  return 0;
}

int FuseServer::Link(FuseRequest& request, FuseReply& reply) {
  fuse_link_in in;
  std::string name;
  Inode* inode;
  int fd;
  int dir;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(request.TakeName(&name));
  CUBE_FS_TRY(ReachNode(in.oldnodeid, &inode, &fd));
  // Another name for a device node of the host's is as good as a new one.
  if (inode->type != S_IFREG && inode->type != S_IFLNK) return EPERM;
  CUBE_FS_TRY(ReachDirectory(request.header().nodeid, &dir));
  CUBE_FS_TRY(
      ResultOf(linkat(AT_FDCWD, ProcPath(fd).c_str(), dir, name.c_str(), AT_SYMLINK_FOLLOW)));
  return ReplyEntry(dir, name, reply);
}

}  // namespace cube::devices::fs
