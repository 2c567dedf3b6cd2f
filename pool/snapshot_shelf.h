#ifndef CUBE_POOL_SNAPSHOT_SHELF_H_
#define CUBE_POOL_SNAPSHOT_SHELF_H_

#include <map>
#include <set>
#include <string>
#include <vector>

#include "pool/outcome.h"
#include "pool/store.h"

namespace cube::pool {

// The node's snapshots: in the store and, each in a folder of its own, on disk. They are diffs that
// build upon one another, so that one is kept as long as a client's, a sandbox, or another that is
// kept needs it. On one thread.
class SnapshotShelf {
 public:
  // `folder`: where new ones go. `store` outlives the shelf.
  SnapshotShelf(Store* store, std::string folder) : store_(store), folder_(std::move(folder)) {}

  // Reads what the store has and makes the folder.
  Status Open();
  // A folder's path that none has yet.
  Outcome<std::string> NewPath() const;
  // Its folder is there. Stored durably.
  Status Add(SnapshotRecord record);
  // kNotFound unless a client has asked for it.
  Outcome<SnapshotRecord> Find(const std::string& id) const;
  // What a client asked for is not asked for any more.
  Outcome<Done> Disown(const std::string& id);
  std::vector<SnapshotRecord> Named() const;
  // How many diffs lie upon the last base from the folder `path`.
  size_t Depth(const std::string& path);
  // Deletes what none of `roots`, folders, and no client needs. Folders that nobody knows as well.
  // A root need not be there yet. Nothing is deleted while it cannot be told what one builds on.
  void Collect(const std::set<std::string>& roots);
  // Whether a whole snapshot is there.
  static bool IsWhole(const std::string& path);
  size_t size() const { return records_.size(); }

 private:
  // A folder's one name, without links.
  std::string NameOf(const std::string& path) const;
  // The folder that the diff in `path` builds on; "" for a base, and for what is not there yet.
  Result<std::string> Parent(const std::string& path);

  Store* store_;
  std::string folder_;
  std::map<std::string, SnapshotRecord> records_;  // by id
  std::map<std::string, std::string> parents_;     // by name
};

}  // namespace cube::pool

#endif  // CUBE_POOL_SNAPSHOT_SHELF_H_
