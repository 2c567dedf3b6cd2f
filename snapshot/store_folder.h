#ifndef CUBE_SNAPSHOT_STORE_FOLDER_H_
#define CUBE_SNAPSHOT_STORE_FOLDER_H_

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "snapshot/store_pack.h"

namespace cube::snapshot {

// How a page store lies in its folder: packs of chunks, the snapshots that name them, and a lock.
// Whoever changes the store holds the lock alone, whoever looks chunks up shares it; packs that are
// open stay readable when they are deleted.
class StoreFolder {
 public:
  explicit StoreFolder(std::string root) : root_(std::move(root)) {}
  // The store that the snapshot in `folder` belongs to; an error if that is not in one.
  static Result<StoreFolder> Of(const std::string& folder);

  const std::string& root() const { return root_; }
  std::string packs() const { return root_ + "/packs"; }
  std::string snapshots() const { return root_ + "/snapshots"; }

  Status Create() const;
  // Waits for it. Released when the descriptor is closed.
  Result<UniqueFd> Lock(bool exclusive) const;
  // All packs. One that cannot be read is an error, unless there is a list for those.
  Result<std::vector<Pack>> OpenPacks(std::vector<Error>* unreadable) const;
  // The names of the snapshots, sorted.
  Result<std::vector<std::string>> Snapshots() const;

 private:
  std::string root_;
};

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_STORE_FOLDER_H_
