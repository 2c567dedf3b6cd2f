#ifndef CUBE_SNAPSHOT_PAGE_STORE_H_
#define CUBE_SNAPSHOT_PAGE_STORE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "snapshot/snapshot.h"
#include "snapshot/store_folder.h"

namespace cube::snapshot {

// The snapshots at rest of a node: their memory is cut into chunks, which are compressed, and kept
// once whoever they belong to. Every snapshot in it stands for itself: what were its parents is not
// needed. docs/snapshots.md has the form of the files.
//
// Any number of processes may use it at once; those that change it wait for one another. A crash at
// any point leaves every published snapshot whole, and perhaps chunks that nobody names: Gc().
class PageStore {
 public:
  // Made if it is not there.
  static Result<PageStore> Open(const std::string& root);

  struct Added {
    bool is_new = true;    // false: it was there already, and nothing was done
    std::string path;      // of the folder to restore from
    uint64_t chunks = 0;   // that the snapshot consists of
    uint64_t stored = 0;   // of them were not there yet,
    uint64_t written = 0;  // and take that many bytes
  };
  // Puts a snapshot in, with the memory of its parents. It keeps its id.
  Result<Added> Add(const Snapshot& snapshot);
  // Takes a snapshot out. Its chunks go with the next Gc().
  Status Remove(const std::string& id);

  struct Stats {
    uint64_t snapshots = 0;
    uint64_t packs = 0;
    uint64_t chunks = 0;
    uint64_t file_bytes = 0;   // of packs
    uint64_t raw_bytes = 0;    // of their chunks, uncompressed
    uint64_t image_bytes = 0;  // of all snapshots' memory but the chunks of zeros
    uint64_t unused_chunks = 0;
    uint64_t unused_bytes = 0;  // as stored
  };
  Result<Stats> Count() const;

  struct Collected {
    uint64_t packs_deleted = 0;
    uint64_t packs_written = 0;
    uint64_t chunks_deleted = 0;
    uint64_t bytes_freed = 0;
  };
  // Deletes what no snapshot names, and joins small packs. Refuses, with nothing deleted, if what
  // one of them names cannot be told.
  Result<Collected> Gc();

  // Reads everything. What is wrong, a line each, with the name of what it is in.
  Result<std::vector<std::string>> Verify() const;

  std::string SnapshotPath(const std::string& id) const { return folder_.snapshots() + "/" + id; }
  const StoreFolder& folder() const { return folder_; }

 private:
  explicit PageStore(StoreFolder folder) : folder_(std::move(folder)) {}
  Status RemoveLeftovers() const;

  StoreFolder folder_;
};

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_PAGE_STORE_H_
