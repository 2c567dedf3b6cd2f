#ifndef CUBE_DEVICES_FS_INODE_TABLE_H_
#define CUBE_DEVICES_FS_INODE_TABLE_H_

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/result.h"
#include "base/state_io.h"
#include "base/unique_fd.h"
#include "devices/fs/host_file.h"
#include "devices/fs/limits.h"

namespace cube::devices::fs {

// What the guest knows a file by: a number that is never used again.
using NodeId = uint64_t;
inline constexpr NodeId kRootNode = 1;

// What a file looked like, to tell whether another directory's file of the same path is a copy.
struct FileLooks {
  uint64_t size = 0;
  int64_t mtime_seconds = 0;
  uint64_t mtime_nanoseconds = 0;
  bool operator==(const FileLooks&) const = default;
};

// A file of the share that the guest's kernel knows. Warm, it has an O_PATH descriptor; cold, it
// has the path at which it was last, and is looked for there when it is needed.
struct Inode {
  NodeId node = 0;
  FileId id = {};
  uint32_t type = 0;     // S_IFMT
  uint64_t lookups = 0;  // replies with this node that were not forgotten
  uint32_t handles = 0;  // open ones
  UniqueFd fd;
  std::string path;  // relative to the root; empty if it is not known where it is
  FileLooks looks;
  std::list<Inode*>::iterator recent;  // in InodeTable's list, if warm and without handles
};

// The files of a share that its guest knows, by node and by what they are on the host; nothing that
// is outside the share's root is ever reached through it.
class InodeTable {
 public:
  // `root` is an O_PATH descriptor of a directory.
  static Result<InodeTable> Create(UniqueFd root, const Limits& limits);

  // Nothing if the guest does not know such a node, or has forgotten it.
  Inode* Find(NodeId node);
  Inode* root() { return root_; }

  // The file's O_PATH descriptor, valid until the request has been served. ESTALE if it is gone,
  // or is not beneath the root any more: the host has moved it, or a directory above it, away.
  int Reach(Inode* inode, int* fd);

  // Looks a name up; the caller has checked it and has reached `dir`. The guest is told of the
  // node, and forgets it by Forget().
  int Lookup(int dir, const std::string& name, Inode** inode, struct statx* stat);
  // The same of a file at hand.
  int Add(UniqueFd path_fd, const struct statx& stat, Inode** inode);
  void Forget(NodeId node, uint64_t lookups);

  // A file that is open is kept, and stays warm.
  void Retain(Inode* inode);
  void Release(NodeId node);

  // As it was made: the root only.
  void Clear();

  // The file system that the root is on.
  uint64_t root_device() const { return root_->id.device; }
  size_t size() const { return by_node_.size(); }
  size_t warm() const { return recent_.size(); }

  // ---- saved state (saved_state.cc)

  void Save(StateWriter* state);
  // Into a table just made, of the same root or of another that may hold the same files. What is
  // not found there is ESTALE to the guest; only state that nothing can be made of is an error.
  Status Load(StateReader* state);

 private:
  InodeTable(UniqueFd root, const Limits& limits) : limits_(limits), root_fd_(std::move(root)) {}

  void AddRoot();
  int PathBeneathRoot(int fd, std::string* path);
  int OpenCold(Inode* inode, bool by_id, UniqueFd* fd);
  void Warm(Inode* inode, UniqueFd fd);
  void Cool(Inode* inode);
  void CoolSurplus();
  void EraseIfUnused(Inode* inode);
  void DropPath(Inode* inode);
  void AdoptAll(bool same_root);

  Limits limits_;
  UniqueFd root_fd_;
  Inode* root_ = nullptr;
  NodeId next_node_ = kRootNode + 1;
  size_t path_bytes_ = 0;
  std::unordered_map<NodeId, std::unique_ptr<Inode>> by_node_;
  std::unordered_map<FileId, Inode*, FileIdHash> by_id_;
  std::list<Inode*> recent_;  // the one used last is first
};

}  // namespace cube::devices::fs

#endif  // CUBE_DEVICES_FS_INODE_TABLE_H_
