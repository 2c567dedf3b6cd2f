// Requests on open directories.
#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "devices/fs/fuse_server.h"

namespace cube::devices::fs {
namespace {

// Entries asked of the host at a time, in bytes.
constexpr size_t kHostBuffer = 4096;

bool IsDots(const char* name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

}  // namespace

int FuseServer::OpenDir(FuseRequest& request, FuseReply& reply) {
  fuse_open_in in;
  Inode* inode;
  int path_fd;
  UniqueFd directory;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(ReachNode(request.header().nodeid, &inode, &path_fd));
  if (inode->type != S_IFDIR) return ENOTDIR;
  if (handles_.full()) return ENFILE;
  CUBE_FS_TRY(OpenDirectory(path_fd, &directory));
  return AddHandle(inode, std::move(directory), O_RDONLY, reply);
}

int FuseServer::ReadDir(FuseRequest& request, FuseReply& reply) {
  return ReadEntries(request, reply, false);
}

int FuseServer::ReadDirPlus(FuseRequest& request, FuseReply& reply) {
  return ReadEntries(request, reply, true);
}

int FuseServer::ReadEntries(FuseRequest& request, FuseReply& reply, bool plus) {
  fuse_read_in in;
  Handle* handle;
  Inode* inode;
  int dir;
  CUBE_FS_TRY(request.Take(&in));
  CUBE_FS_TRY(handles_.Find(in.fh, true, &handle));
  CUBE_FS_TRY(ReachNode(handle->node, &inode, &dir));
  if (in.offset > std::numeric_limits<int64_t>::max()) return EINVAL;
  auto position = static_cast<int64_t>(in.offset);
  int fd = handle->fd.get();
  if (position != handle->position && lseek(fd, position, SEEK_SET) < 0) return HostError();
  handle->position = kNoPosition;
  const uint32_t room = reply.room();
  const uint32_t limit = std::min({in.size, kMaxTransfer, room});
  alignas(dirent64) char buffer[kHostBuffer];
  while (true) {
    ssize_t size = getdents64(fd, buffer, sizeof buffer);
    if (size < 0 && reply.room() == room) return HostError();
    if (size <= 0) break;
    for (ssize_t at = 0; at < size;) {
      auto* entry = reinterpret_cast<dirent64*>(buffer + at);
      // What the parent of the root is like is none of the guest's business.
      uint64_t number =
          inode == inodes_.root() && IsDots(entry->d_name) ? inode->id.inode : entry->d_ino;
      uint32_t left = limit - (room - reply.room());
      if (!PutEntry(dir, entry->d_name, entry->d_type, number, entry->d_off, left, plus, reply)) {
        return 0;
      }
      position = entry->d_off;
      at += entry->d_reclen;
    }
  }
  handle->position = position;
  return 0;
}

// One entry, if it is not longer than `left`.
bool FuseServer::PutEntry(int dir, const char* name, uint8_t type, uint64_t number, int64_t next,
                          uint32_t left, bool plus, FuseReply& reply) {
  size_t length = strlen(name);
  size_t size = FUSE_REC_ALIGN(FUSE_NAME_OFFSET + length);
  if (size + (plus ? sizeof(fuse_entry_out) : 0) > left) return false;
  if (plus) {
    // Node 0: this entry was not looked up, by itself or because it failed.
    fuse_entry_out found = {};
    Inode* inode;
    struct statx stat;
    if (!IsDots(name) && inodes_.Lookup(dir, name, &inode, &stat) == 0) found = Entry(*inode, stat);
    reply.Put(found);
  }
  fuse_dirent entry = {};
  entry.ino = number;
  entry.off = static_cast<uint64_t>(next);
  entry.namelen = static_cast<uint32_t>(length);
  entry.type = type;
  constexpr uint8_t kPadding[sizeof(uint64_t)] = {};
  reply.PutBytes({reinterpret_cast<const uint8_t*>(&entry), FUSE_NAME_OFFSET});
  reply.PutBytes({reinterpret_cast<const uint8_t*>(name), length});
  reply.PutBytes({kPadding, size - FUSE_NAME_OFFSET - length});
  return true;
}

int FuseServer::ReleaseDir(FuseRequest& request, FuseReply&) {
  return ReleaseHandle(request, true);
}

int FuseServer::SyncDir(FuseRequest& request, FuseReply&) { return SyncHandle(request, true); }

}  // namespace cube::devices::fs
