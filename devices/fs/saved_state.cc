// A session as it is saved: what the guest knows files by, and where they were beneath the root.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "devices/fs/fuse_server.h"

namespace cube::devices::fs {
namespace {

struct SavedTable {
  FileId root;
  NodeId next_node;
  uint64_t count;
};

// The path follows.
struct SavedInode {
  NodeId node;
  FileId id;
  uint64_t lookups;
  FileLooks looks;
  uint64_t type;
};

struct SavedHandle {
  uint64_t number;
  NodeId node;
  uint32_t flags;
  uint32_t directory;
};

// EINVAL unless a path is names of files with a '/' between each two; empty is fine.
int CheckPath(const std::string& path) {
  if (path.empty()) return 0;
  if (path.find('\0') != std::string::npos) return EINVAL;
  for (size_t at = 0; at <= path.size();) {
    size_t end = std::min(path.find('/', at), path.size());
    CUBE_FS_TRY(CheckName(path.substr(at, end - at)));
    at = end + 1;
  }
  return 0;
}

bool ValidType(uint64_t type) {
  return type == S_IFREG || type == S_IFDIR || type == S_IFLNK || type == S_IFIFO ||
         type == S_IFSOCK || type == S_IFCHR || type == S_IFBLK;
}

unsigned long long Print(uint64_t value) { return value; }

}  // namespace

// ---- inodes

void InodeTable::Save(StateWriter* state) {
  state->Put(SavedTable{root_->id, next_node_, by_node_.size() - 1});
  for (auto& [node, inode] : by_node_) {
    if (inode.get() == root_) continue;
    SavedInode saved = {node, inode->id, inode->lookups, inode->looks, inode->type};
    std::string path = inode->path;
    struct statx stat;
    if (inode->fd.valid()) {
      // One that has been moved out of the share is nowhere.
      if (PathBeneathRoot(inode->fd.get(), &path) != 0) path.clear();
      if (StatFile(inode->fd.get(), &stat) == 0) {
        saved.looks = {stat.stx_size, stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec};
      }
    }
    state->Put(saved);
    state->PutString(path);
  }
}

Status InodeTable::Load(StateReader* state) {
  SavedTable table;
  CUBE_TRY(state->Get(&table));
  if (table.count >= limits_.inodes) {
    return Errorf("%llu saved inodes, at most %zu are possible", Print(table.count),
                  limits_.inodes);
  }
  Clear();
  const bool same_root = table.root == root_->id;
  for (uint64_t i = 0; i < table.count; ++i) {
    SavedInode saved;
    CUBE_TRY(state->Get(&saved));
    CUBE_ASSIGN(std::string path, state->GetString(PATH_MAX));
    if (saved.node <= kRootNode || saved.node >= table.next_node || !ValidType(saved.type)) {
      return Errorf("saved node %llu of type %#llx, nodes are given out up to %llu",
                    Print(saved.node), Print(saved.type), Print(table.next_node));
    }
    if (CheckPath(path) != 0) {
      return Errorf("saved node %llu: not a path beneath a root", Print(saved.node));
    }
    if (path_bytes_ + path.size() > limits_.path_bytes + limits_.descriptors() * PATH_MAX) {
      return Errorf("saved paths of more than %zu bytes", limits_.path_bytes);
    }
    auto inode = std::make_unique<Inode>();
    inode->node = saved.node;
    inode->id = saved.id;
    inode->type = static_cast<uint32_t>(saved.type);
    inode->lookups = saved.lookups;
    inode->looks = saved.looks;
    path_bytes_ += path.size();
    inode->path = std::move(path);
    if (!by_node_.try_emplace(saved.node, std::move(inode)).second) {
      return Errorf("node %llu was saved twice", Print(saved.node));
    }
  }
  next_node_ = table.next_node;
  AdoptAll(same_root);
  return OkStatus();
}

void InodeTable::AdoptAll(bool same_root) {
  for (auto& [node, inode] : by_node_) {
    if (inode.get() == root_) continue;
    // In another directory files are others: they are looked up now, for the guest is to find the
    // same node when it comes to one by its name.
    UniqueFd fd;
    bool known = same_root || OpenCold(inode.get(), false, &fd) == 0;
    if (known && !by_id_.try_emplace(inode->id, inode.get()).second) known = false;
    if (!known) {
      DropPath(inode.get());
    } else if (fd.valid()) {
      Warm(inode.get(), std::move(fd));
    }
  }
}

// ---- handles

void HandleTable::Save(StateWriter* state) const {
  state->Put(next_);
  state->Put(uint64_t{handles_.size()});
  for (const auto& [number, handle] : handles_) {
    state->Put(SavedHandle{number, handle.node, handle.flags, handle.directory ? 1u : 0u});
  }
}

Status HandleTable::Load(StateReader* state, InodeTable* inodes, bool read_only) {
  uint64_t next;
  uint64_t count;
  CUBE_TRY(state->Get(&next));
  CUBE_TRY(state->Get(&count));
  if (count > limit_) {
    return Errorf("%llu saved open files, at most %zu are possible", Print(count), limit_);
  }
  for (uint64_t i = 0; i < count; ++i) {
    SavedHandle saved;
    CUBE_TRY(state->Get(&saved));
    Inode* inode = inodes->Find(saved.node);
    bool directory = saved.directory != 0;
    if (inode == nullptr || directory != (inode->type == S_IFDIR) || saved.number >= next ||
        (saved.flags & ~static_cast<uint32_t>(O_ACCMODE | O_APPEND | O_SYNC)) != 0) {
      return Errorf("saved open file %llu of node %llu, flags %#x", Print(saved.number),
                    Print(saved.node), saved.flags);
    }
    Handle handle;
    handle.node = saved.node;
    handle.flags = saved.flags;
    handle.directory = directory;
    auto added = handles_.try_emplace(saved.number, std::move(handle));
    if (!added.second) return Errorf("open file %llu was saved twice", Print(saved.number));
    inodes->Retain(inode);
    // What is not there any more, or may not be opened, is ESTALE when it is used.
    if (read_only && (saved.flags & O_ACCMODE) != O_RDONLY) continue;
    int fd;
    if (inodes->Reach(inode, &fd) != 0) continue;
    Handle& made = added.first->second;
    (void)(directory ? OpenDirectory(fd, &made.fd)
                     : OpenRegular(fd, static_cast<int>(saved.flags), &made.fd));
  }
  next_ = next;
  return OkStatus();
}

// ---- the session

void FuseServer::Save(StateWriter* state) {
  state->Put(uint32_t{initialized_});
  inodes_.Save(state);
  handles_.Save(state);
}

Status FuseServer::Load(StateReader* state) {
  // Into tables of their own, so that an error leaves nothing half done.
  int root_fd;
  (void)inodes_.Reach(inodes_.root(), &root_fd);
  UniqueFd root(fcntl(root_fd, F_DUPFD_CLOEXEC, 0));
  if (!root.valid()) return ErrnoError("%s", config_.directory.c_str());
  CUBE_ASSIGN(InodeTable inodes, InodeTable::Create(std::move(root), config_.limits));
  HandleTable handles(config_.limits.handles);
  uint32_t initialized;
  CUBE_TRY(state->Get(&initialized));
  if (initialized > 1) return Errorf("a saved session that is %u", initialized);
  CUBE_TRY(inodes.Load(state));
  CUBE_TRY(handles.Load(state, &inodes, config_.read_only));
  initialized_ = initialized != 0;
  inodes_ = std::move(inodes);
  handles_ = std::move(handles);
  return OkStatus();
}

}  // namespace cube::devices::fs
