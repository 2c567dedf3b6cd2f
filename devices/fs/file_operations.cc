// Requests on the content of files.
#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "devices/fs/fuse_server.h"

namespace cube::devices::fs {
namespace {

constexpr uint64_t kMaxOffset = std::numeric_limits<int64_t>::max();

int ResultOf(int value) { return value < 0 ? HostError() : 0; }

bool Writable(uint32_t flags) { return (flags & O_ACCMODE) != O_RDONLY; }

}  // namespace

int FuseServer::HostFlags(uint32_t guest_flags, int* flags) const {
  uint32_t access = guest_flags & O_ACCMODE;
  if (access == O_ACCMODE) return EINVAL;
  if (config_.read_only && (access != O_RDONLY || (guest_flags & O_TRUNC) != 0)) return EROFS;
  *flags = static_cast<int>(access | (guest_flags & (O_APPEND | O_TRUNC | O_SYNC)));
  return 0;
}

int FuseServer::AddHandle(Inode* inode, UniqueFd fd, uint32_t flags, FuseReply& reply) {
  Handle handle;
  handle.fd = std::move(fd);
  handle.node = inode->node;
  handle.flags = flags & (O_ACCMODE | O_APPEND | O_SYNC);
  handle.directory = inode->type == S_IFDIR;
  inodes_.Retain(inode);
  fuse_open_out out = {};
  out.fh = handles_.Add(std::move(handle));
  reply.Put(out);
  return 0;
}

int FuseServer::Open(FuseRequest& request, FuseReply& reply) {
  fuse_open_in in;
  Inode* inode;
  int path_fd;
  int flags;
  UniqueFd file;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(HostFlags(in.flags, &flags));
  CUBE_FS_TRY(ReachNode(request.header().nodeid, &inode, &path_fd));
  if (handles_.full()) return ENFILE;
  CUBE_FS_TRY(OpenRegular(path_fd, flags, &file));
  if ((flags & O_TRUNC) != 0 && Writable(static_cast<uint32_t>(flags)) &&
      identity_.keeps_privileges()) {
    CUBE_FS_TRY(ClearPrivileges(file.get()));
  }
  return AddHandle(inode, std::move(file), static_cast<uint32_t>(flags), reply);
}

int FuseServer::Read(FuseRequest& request, FuseReply& reply) {
  fuse_read_in in;
  Handle* handle;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(handles_.Find(in.fh, false, &handle));
  if (in.offset > kMaxOffset) return EINVAL;
  iovecs_.clear();
  reply.RoomIovecs(std::min({in.size, kMaxTransfer, reply.room()}), &iovecs_);
  ssize_t size = preadv(handle->fd.get(), iovecs_.data(), static_cast<int>(iovecs_.size()),
                        static_cast<off_t>(in.offset));
  if (size < 0) return HostError();
  counts_.bytes_read += static_cast<uint64_t>(size);
  reply.AddRead(static_cast<uint32_t>(size));
  return 0;
}

int FuseServer::Write(FuseRequest& request, FuseReply& reply) {
  fuse_write_in in;
  Handle* handle;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(handles_.Find(in.fh, false, &handle));
  if (in.offset > kMaxOffset || in.size > kMaxTransfer) return EINVAL;
  if (!Writable(handle->flags)) return EBADF;
  iovecs_.clear();
  CUBE_FS_TRY(request.TakeIovecs(in.size, &iovecs_));
  if (identity_.keeps_privileges()) CUBE_FS_TRY(ClearPrivileges(handle->fd.get()));
  ssize_t size = pwritev(handle->fd.get(), iovecs_.data(), static_cast<int>(iovecs_.size()),
                         static_cast<off_t>(in.offset));
  if (size < 0) return HostError();
  counts_.bytes_written += static_cast<uint64_t>(size);
  fuse_write_out out = {};
  out.size = static_cast<uint32_t>(size);
  reply.Put(out);
  return 0;
}

int FuseServer::ReleaseHandle(FuseRequest& request, bool directory) {
  fuse_release_in in;
  CUBE_FS_TRY(request.Take(&in));
  NodeId node = handles_.Remove(in.fh, directory);
  if (node == 0) return EBADF;
  inodes_.Release(node);
  return 0;
}

int FuseServer::Release(FuseRequest& request, FuseReply&) { return ReleaseHandle(request, false); }

int FuseServer::Flush(FuseRequest& request, FuseReply&) {
  fuse_flush_in in;
  Handle* handle;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(handles_.Find(in.fh, false, &handle));
  if (!Writable(handle->flags)) return 0;
  // Some file systems tell only at a close() that what was written could not be kept.
  UniqueFd copy(fcntl(handle->fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return HostError();
  return ResultOf(close(copy.Release()));
}

int FuseServer::SyncHandle(FuseRequest& request, bool directory) {
  fuse_fsync_in in;
  Handle* handle;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(handles_.Find(in.fh, directory, &handle));
  int fd = handle->fd.get();
  return ResultOf((in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0 ? fdatasync(fd) : fsync(fd));
}

int FuseServer::Sync(FuseRequest& request, FuseReply&) { return SyncHandle(request, false); }

int FuseServer::Allocate(FuseRequest& request, FuseReply&) {
  fuse_fallocate_in in;
  Handle* handle;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(handles_.Find(in.fh, false, &handle));
  // Ranges that move the rest of the file are not among what the guest's kernel asks for.
  constexpr uint32_t kModes = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
  if ((in.mode & ~kModes) != 0) return EOPNOTSUPP;
  if (in.offset > kMaxOffset || in.length > kMaxOffset) return EINVAL;
  if (!Writable(handle->flags)) return EBADF;
  if (identity_.keeps_privileges()) CUBE_FS_TRY(ClearPrivileges(handle->fd.get()));
  return ResultOf(fallocate(handle->fd.get(), static_cast<int>(in.mode),
                            static_cast<off_t>(in.offset), static_cast<off_t>(in.length)));
}

int FuseServer::Seek(FuseRequest& request, FuseReply& reply) {
  fuse_lseek_in in;
  Handle* handle;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(handles_.Find(in.fh, false, &handle));
  // The rest is arithmetic, which the guest does itself.
  if ((in.whence != SEEK_DATA && in.whence != SEEK_HOLE) || in.offset > kMaxOffset) return EINVAL;
  off_t found = lseek(handle->fd.get(), static_cast<off_t>(in.offset), static_cast<int>(in.whence));
  if (found < 0) return HostError();
  fuse_lseek_out out = {};
  out.offset = static_cast<uint64_t>(found);
  reply.Put(out);
  return 0;
}

int FuseServer::CopyRange(FuseRequest& request, FuseReply& reply) {
  fuse_copy_file_range_in in;
  Handle* from;
  Handle* to;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(handles_.Find(in.fh_in, false, &from));
  CUBE_FS_TRY(handles_.Find(in.fh_out, false, &to));
  if (in.flags != 0 || in.off_in > kMaxOffset || in.off_out > kMaxOffset) return EINVAL;
  if (!Writable(to->flags)) return EBADF;
  if (identity_.keeps_privileges()) CUBE_FS_TRY(ClearPrivileges(to->fd.get()));
  auto source = static_cast<off_t>(in.off_in);
  auto target = static_cast<off_t>(in.off_out);
  ssize_t size = copy_file_range(from->fd.get(), &source, to->fd.get(), &target,
                                 std::min(in.len, kMaxCopy), 0);
  if (size < 0) return HostError();
  fuse_write_out out = {};
  out.size = static_cast<uint32_t>(size);
  reply.Put(out);
  return 0;
}

}  // namespace cube::devices::fs
