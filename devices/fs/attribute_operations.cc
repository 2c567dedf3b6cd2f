// Requests on what there is to say of files beside their names and content.
#include <limits.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string_view>

#include "devices/fs/fuse_server.h"

namespace cube::devices::fs {
namespace {

// The set-user-ID and set-group-ID bits cannot be set (name_operations.cc).
constexpr mode_t kModeBits = 01777;

// The only extended attributes that are the guest's: others mean something to the host's kernel.
constexpr std::string_view kUserPrefix = "user.";
// Of <linux/limits.h>, which redefines what <limits.h> has.
constexpr uint32_t kMaxXattr = 65536;

int ResultOf(int value) { return value < 0 ? HostError() : 0; }

bool IsUserXattr(std::string_view name) {
  return name.starts_with(kUserPrefix) && name.size() > kUserPrefix.size();
}

// What utimensat(2) is to do with one of the times.
int TimeOf(uint32_t valid, uint32_t set, uint32_t now, uint64_t seconds, uint32_t nanoseconds,
           timespec* time) {
  *time = {0, UTIME_OMIT};
  if ((valid & now) != 0) {
    time->tv_nsec = UTIME_NOW;
  } else if ((valid & set) != 0) {
    if (nanoseconds >= 1'000'000'000) return EINVAL;
    *time = {static_cast<time_t>(seconds), static_cast<long>(nanoseconds)};
  }
  return 0;
}

}  // namespace

int FuseServer::GetAttributes(FuseRequest& request, FuseReply& reply) {
  fuse_getattr_in in;
  Inode* inode;
  int fd;
  struct statx stat;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(ReachNode(request.header().nodeid, &inode, &fd));
  CUBE_FS_TRY(StatFile(fd, &stat));
  reply.Put(fuse_attr_out{1, 0, 0, Attributes(inode->node, stat)});
  return 0;
}

int FuseServer::SetAttributes(FuseRequest& request, FuseReply& reply) {
  fuse_setattr_in in;
  Inode* inode;
  int fd;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(ReachNode(request.header().nodeid, &inode, &fd));
  // Files belong to the mapped user or to nobody; giving them to another is not possible, and
  // giving them to that one changes nothing.
  struct statx stat;
  CUBE_FS_TRY(StatFile(fd, &stat));
  fuse_attr now = Attributes(inode->node, stat);
  if (((in.valid & FATTR_UID) != 0 && in.uid != now.uid) ||
      ((in.valid & FATTR_GID) != 0 && in.gid != now.gid)) {
    return EPERM;
  }
  if ((in.valid & FATTR_MODE) != 0) {
    if (inode->type == S_IFLNK) return EOPNOTSUPP;
    CUBE_FS_TRY(ResultOf(chmod(ProcPath(fd).c_str(), in.mode & kModeBits)));
  }
  if ((in.valid & FATTR_SIZE) != 0) {
    if (inode->type != S_IFREG) return inode->type == S_IFDIR ? EISDIR : EINVAL;
    CUBE_FS_TRY(SetSize(in, fd));
  }
  CUBE_FS_TRY(SetTimes(in, fd));
  CUBE_FS_TRY(StatFile(fd, &stat));
  reply.Put(fuse_attr_out{1, 0, 0, Attributes(inode->node, stat)});
  return 0;
}

int FuseServer::SetSize(const fuse_setattr_in& in, int fd) {
  if (in.size > std::numeric_limits<int64_t>::max()) return EFBIG;
  auto size = static_cast<off_t>(in.size);
  // By its handle a file can be cut that could not be opened for writing any more.
  Handle* handle;
  if ((in.valid & FATTR_FH) != 0 && handles_.Find(in.fh, false, &handle) == 0 &&
      (handle->flags & O_ACCMODE) != O_RDONLY) {
    if (identity_.keeps_privileges()) CUBE_FS_TRY(ClearPrivileges(handle->fd.get()));
    return ResultOf(ftruncate(handle->fd.get(), size));
  }
  UniqueFd file;
  CUBE_FS_TRY(OpenRegular(fd, O_WRONLY, &file));
  if (identity_.keeps_privileges()) CUBE_FS_TRY(ClearPrivileges(file.get()));
  return ResultOf(ftruncate(file.get(), size));
}

int FuseServer::SetTimes(const fuse_setattr_in& in, int fd) {
  timespec times[2];
  CUBE_FS_TRY(TimeOf(in.valid, FATTR_ATIME, FATTR_ATIME_NOW, in.atime, in.atimensec, &times[0]));
  CUBE_FS_TRY(TimeOf(in.valid, FATTR_MTIME, FATTR_MTIME_NOW, in.mtime, in.mtimensec, &times[1]));
  if (times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT) return 0;
  return ResultOf(utimensat(fd, "", times, AT_EMPTY_PATH));
}

int FuseServer::Access(FuseRequest& request, FuseReply&) {
  fuse_access_in in;
  Inode* inode;
  int fd;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(ReachNode(request.header().nodeid, &inode, &fd));
  if ((in.mask & ~static_cast<uint32_t>(R_OK | W_OK | X_OK)) != 0) return EINVAL;
  if ((in.mask & W_OK) != 0 && config_.read_only) return EROFS;
  if (inode->type == S_IFLNK) return 0;
  return ResultOf(faccessat(AT_FDCWD, ProcPath(fd).c_str(), static_cast<int>(in.mask), AT_EACCESS));
}

int FuseServer::FileSystemStatus(FuseRequest& request, FuseReply& reply) {
  Inode* inode;
  int fd;
  struct statfs host;
  CUBE_FS_TRY(ReachNode(request.header().nodeid, &inode, &fd));
  CUBE_FS_TRY(ResultOf(fstatfs(fd, &host)));
  fuse_statfs_out out = {};
  out.st.blocks = host.f_blocks;
  out.st.bfree = host.f_bfree;
  out.st.bavail = host.f_bavail;
  out.st.files = host.f_files;
  out.st.ffree = host.f_ffree;
  out.st.bsize = static_cast<uint32_t>(host.f_bsize);
  out.st.frsize = static_cast<uint32_t>(host.f_frsize);
  out.st.namelen = NAME_MAX;
  reply.Put(out);
  return 0;
}

// ---- extended attributes

int FuseServer::GetXattr(FuseRequest& request, FuseReply& reply) {
  fuse_getxattr_in in;
  std::string name;
  Inode* inode;
  int fd;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(request.TakeText(NAME_MAX, &name));
  if (!IsUserXattr(name)) return EOPNOTSUPP;
  CUBE_FS_TRY(ReachNode(request.header().nodeid, &inode, &fd));
  if (inode->type == S_IFLNK) return ENODATA;
  std::vector<uint8_t> value(std::min(in.size, kMaxXattr));
  ssize_t size = getxattr(ProcPath(fd).c_str(), name.c_str(), value.data(), value.size());
  if (size < 0) return HostError();
  if (in.size == 0) {
    reply.Put(fuse_getxattr_out{static_cast<uint32_t>(size), 0});
    return 0;
  }
  if (static_cast<size_t>(size) > reply.room()) return ERANGE;
  reply.PutBytes({value.data(), static_cast<size_t>(size)});
  return 0;
}

int FuseServer::SetXattr(FuseRequest& request, FuseReply&) {
  // The form without FUSE_SETXATTR_EXT, which is not offered.
  struct SetXattrRequest {
    uint32_t size;
    uint32_t flags;
  } in;
  std::string name;
  std::vector<uint8_t> value;
  Inode* inode;
  int fd;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(request.TakeText(NAME_MAX, &name));
  if (in.size > kMaxXattr) return E2BIG;
  CUBE_FS_TRY(request.TakeBytes(in.size, &value));
  if (!IsUserXattr(name)) return name.starts_with(kUserPrefix) ? EINVAL : EPERM;
  if ((in.flags & ~static_cast<uint32_t>(XATTR_CREATE | XATTR_REPLACE)) != 0) return EINVAL;
  CUBE_FS_TRY(ReachNode(request.header().nodeid, &inode, &fd));
  if (inode->type == S_IFLNK) return EPERM;
  return ResultOf(setxattr(ProcPath(fd).c_str(), name.c_str(), value.data(), value.size(),
                           static_cast<int>(in.flags)));
}

int FuseServer::ListXattr(FuseRequest& request, FuseReply& reply) {
  fuse_getxattr_in in;
  Inode* inode;
  int fd;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(ReachNode(request.header().nodeid, &inode, &fd));
  std::vector<char> all;
  ssize_t size = 0;
  if (inode->type != S_IFLNK) {
    all.resize(kMaxXattr);
    size = listxattr(ProcPath(fd).c_str(), all.data(), all.size());
    if (size < 0) return HostError();
  }
  std::string users;
  for (const char* name = all.data(); name < all.data() + size; name += strlen(name) + 1) {
    if (IsUserXattr(name)) users.append(name, strlen(name) + 1);
  }
  if (in.size == 0) {
    reply.Put(fuse_getxattr_out{static_cast<uint32_t>(users.size()), 0});
    return 0;
  }
  if (users.size() > std::min(in.size, reply.room())) return ERANGE;
  reply.PutBytes({reinterpret_cast<const uint8_t*>(users.data()), users.size()});
  return 0;
}

int FuseServer::RemoveXattr(FuseRequest& request, FuseReply&) {
  std::string name;
  Inode* inode;
  int fd;
  CUBE_FS_TRY(request.TakeText(NAME_MAX, &name));
  if (!IsUserXattr(name)) return EPERM;
  CUBE_FS_TRY(ReachNode(request.header().nodeid, &inode, &fd));
  if (inode->type == S_IFLNK) return EPERM;
  return ResultOf(removexattr(ProcPath(fd).c_str(), name.c_str()));
}

}  // namespace cube::devices::fs
