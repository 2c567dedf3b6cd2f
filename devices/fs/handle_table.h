#ifndef CUBE_DEVICES_FS_HANDLE_TABLE_H_
#define CUBE_DEVICES_FS_HANDLE_TABLE_H_

#include <cerrno>
#include <cstdint>
#include <unordered_map>
#include <utility>

#include "base/unique_fd.h"
#include "devices/fs/inode_table.h"

namespace cube::devices::fs {

// A file or directory that the guest has open.
struct Handle {
  UniqueFd fd;  // none if it could not be opened again after a restore
  NodeId node = 0;
  uint32_t flags = 0;  // of open(2), as far as they matter when it is opened again
  bool directory = false;
  // Of a directory: what the descriptor stands at, or kNoPosition.
  int64_t position = 0;
};
inline constexpr int64_t kNoPosition = -1;

// The open files of a share, by a number that is never used again.
class HandleTable {
 public:
  explicit HandleTable(size_t limit) : limit_(limit) {}

  bool full() const { return handles_.size() >= limit_; }
  // Only if not full.
  uint64_t Add(Handle handle) {
    handles_[next_] = std::move(handle);
    return next_++;
  }
  // EBADF if there is none of the kind, ESTALE if its file was gone when it was restored.
  int Find(uint64_t number, bool directory, Handle** handle) {
    auto found = handles_.find(number);
    if (found == handles_.end() || found->second.directory != directory) return EBADF;
    if (!found->second.fd.valid()) return ESTALE;
    *handle = &found->second;
    return 0;
  }
  // Closes it; the node it was of, 0 if there is none of the kind.
  NodeId Remove(uint64_t number, bool directory) {
    auto found = handles_.find(number);
    if (found == handles_.end() || found->second.directory != directory) return 0;
    NodeId node = found->second.node;
    handles_.erase(found);
    return node;
  }
  void Clear() { handles_.clear(); }
  size_t size() const { return handles_.size(); }

  // ---- saved state (saved_state.cc); the inodes' must have been loaded before

  void Save(StateWriter* state) const;
  // With `read_only`, what was open for writing is not opened again.
  Status Load(StateReader* state, InodeTable* inodes, bool read_only);

 private:
  size_t limit_;
  uint64_t next_ = 1;
  std::unordered_map<uint64_t, Handle> handles_;
};

}  // namespace cube::devices::fs

#endif  // CUBE_DEVICES_FS_HANDLE_TABLE_H_
