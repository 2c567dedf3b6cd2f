#include "devices/fs/inode_table.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace cube::devices::fs {
namespace {

// As many as one request can use at a time.
constexpr size_t kLeastWarm = 4;

}  // namespace

Result<InodeTable> InodeTable::Create(UniqueFd root, const Limits& limits) {
  InodeTable table(std::move(root), limits);
  struct statx stat;
  errno = StatFile(table.root_fd_.get(), &stat);
  if (errno != 0) return ErrnoError("statx");
  std::string path;
  errno = PathOf(table.root_fd_.get(), &path);
  if (errno != 0) return ErrnoError("/proc/self/fd");
  table.AddRoot();
  return table;
}

void InodeTable::AddRoot() {
  struct statx stat = {};
  (void)StatFile(root_fd_.get(), &stat);
  auto inode = std::make_unique<Inode>();
  inode->node = kRootNode;
  inode->id = IdOf(stat);
  inode->type = S_IFDIR;
  inode->lookups = 1;
  root_ = inode.get();
  by_id_[inode->id] = inode.get();
  by_node_[kRootNode] = std::move(inode);
}

void InodeTable::Clear() {
  recent_.clear();
  by_id_.clear();
  by_node_.clear();
  path_bytes_ = 0;
  AddRoot();
}

Inode* InodeTable::Find(NodeId node) {
  auto found = by_node_.find(node);
  return found == by_node_.end() ? nullptr : found->second.get();
}

int InodeTable::PathBeneathRoot(int fd, std::string* path) {
  // Both as they are now: the root may be moved like any other directory.
  std::string root;
  std::string whole;
  CUBE_FS_TRY(PathOf(root_fd_.get(), &root));
  CUBE_FS_TRY(PathOf(fd, &whole));
  if (!root.ends_with('/')) root += '/';
  // The root of a mount that is attached nowhere is "/", and so is what has been moved out of it.
  if (!whole.starts_with(root) || whole.size() == root.size()) return ESTALE;
  *path = whole.substr(root.size());
  return 0;
}

int InodeTable::OpenCold(Inode* inode, bool by_id, UniqueFd* fd) {
  if (inode->path.empty()) return ESTALE;
  UniqueFd found;
  int error = OpenPath(root_fd_.get(), inode->path.c_str(), &found);
  // Whatever is in the way now, it is not this file any more.
  if (error == ENFILE || error == ENOMEM || error == EACCES) return error;
  if (error != 0) return ESTALE;
  struct statx stat;
  CUBE_FS_TRY(StatFile(found.get(), &stat));
  if ((stat.stx_mode & S_IFMT) != inode->type) return ESTALE;
  FileId id = IdOf(stat);
  if (by_id) {
    if (id != inode->id) return ESTALE;
  } else {
    FileLooks looks = {stat.stx_size, stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec};
    // Directories of equal content need not have equal sizes and times.
    if (inode->type != S_IFDIR && looks != inode->looks) return ESTALE;
    inode->id = id;
  }
  *fd = std::move(found);
  return 0;
}

int InodeTable::Reach(Inode* inode, int* fd) {
  if (inode == root_) {
    *fd = root_fd_.get();
    return 0;
  }
  if (!inode->fd.valid()) {
    UniqueFd found;
    CUBE_FS_TRY(OpenCold(inode, true, &found));
    Warm(inode, std::move(found));
  } else {
    // A descriptor stays with its file wherever the host moves that. What is moved away between
    // this look and the use of the descriptor counts as moved after it.
    std::string path;
    CUBE_FS_TRY(PathBeneathRoot(inode->fd.get(), &path));
    if (inode->handles == 0) recent_.splice(recent_.begin(), recent_, inode->recent);
  }
  *fd = inode->fd.get();
  return 0;
}

int InodeTable::Lookup(int dir, const std::string& name, Inode** inode, struct statx* stat) {
  UniqueFd fd;
  CUBE_FS_TRY(OpenPath(dir, name.c_str(), &fd));
  CUBE_FS_TRY(StatFile(fd.get(), stat));
  return Add(std::move(fd), *stat, inode);
}

int InodeTable::Add(UniqueFd path_fd, const struct statx& stat, Inode** result) {
  FileId id = IdOf(stat);
  if (auto known = by_id_.find(id); known != by_id_.end()) {
    Inode* inode = known->second;
    ++inode->lookups;
    if (inode != root_ && !inode->fd.valid()) Warm(inode, std::move(path_fd));
    *result = inode;
    return 0;
  }
  if (by_node_.size() >= limits_.inodes || path_bytes_ >= limits_.path_bytes) return ENFILE;
  auto made = std::make_unique<Inode>();
  Inode* inode = made.get();
  inode->node = next_node_++;
  inode->id = id;
  inode->type = stat.stx_mode & S_IFMT;
  inode->lookups = 1;
  by_node_[inode->node] = std::move(made);
  by_id_[id] = inode;
  Warm(inode, std::move(path_fd));
  *result = inode;
  return 0;
}

void InodeTable::Forget(NodeId node, uint64_t lookups) {
  Inode* inode = Find(node);
  if (inode == nullptr || inode == root_) return;
  inode->lookups -= std::min(inode->lookups, lookups);
  EraseIfUnused(inode);
}

void InodeTable::EraseIfUnused(Inode* inode) {
  if (inode->lookups != 0 || inode->handles != 0) return;
  if (inode->fd.valid()) recent_.erase(inode->recent);
  DropPath(inode);
  if (auto known = by_id_.find(inode->id); known != by_id_.end() && known->second == inode) {
    by_id_.erase(known);
  }
  by_node_.erase(inode->node);
}

void InodeTable::Retain(Inode* inode) {
  if (inode->handles++ == 0 && inode != root_ && inode->fd.valid()) recent_.erase(inode->recent);
}

void InodeTable::Release(NodeId node) {
  Inode* inode = Find(node);
  if (inode == nullptr || inode->handles == 0) return;
  if (--inode->handles != 0 || inode == root_) return;
  if (inode->fd.valid()) {
    recent_.push_front(inode);
    inode->recent = recent_.begin();
  }
  EraseIfUnused(inode);
  CoolSurplus();
}

void InodeTable::Warm(Inode* inode, UniqueFd fd) {
  DropPath(inode);
  inode->fd = std::move(fd);
  if (inode->handles != 0) return;
  recent_.push_front(inode);
  inode->recent = recent_.begin();
  CoolSurplus();
}

void InodeTable::CoolSurplus() {
  while (recent_.size() > std::max(limits_.warm_inodes, kLeastWarm)) Cool(recent_.back());
}

void InodeTable::Cool(Inode* inode) {
  struct statx stat;
  if (StatFile(inode->fd.get(), &stat) == 0) {
    inode->looks = {stat.stx_size, stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec};
  }
  std::string path;
  if (PathBeneathRoot(inode->fd.get(), &path) == 0) {
    path_bytes_ += path.size();
    inode->path = std::move(path);
  }
  recent_.erase(inode->recent);
  inode->fd.Reset();
}

void InodeTable::DropPath(Inode* inode) {
  path_bytes_ -= inode->path.size();
  inode->path = std::string();
}

}  // namespace cube::devices::fs
