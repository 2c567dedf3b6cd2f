#ifndef CUBE_SNAPSHOT_COLD_IMAGE_H_
#define CUBE_SNAPSHOT_COLD_IMAGE_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "snapshot/cold_index.h"
#include "snapshot/memory_file.h"
#include "snapshot/store_pack.h"

namespace cube::snapshot {

// The memory image of a snapshot in the page store: a file in memory, empty at first, into which
// chunks are loaded, and never change again. Machines map it privately, as they do with the file of
// a snapshot that is not cold. Any thread.
class ColdImage {
 public:
  // `index` is that of the snapshot in `folder`, whose store's packs are opened, and stay readable
  // whatever is done to the store. An error if a chunk is not there.
  static Result<std::shared_ptr<ColdImage>> Open(const std::string& folder, const ColdIndex& index);

  int fd() const { return file_.get(); }
  uint64_t image_bytes() const { return image_bytes_; }
  // Where anything but zeros can be: sorted, at most kMaxRuns, of whole chunks but for the end of
  // the image.
  const std::vector<PageRun>& data_runs() const { return data_runs_; }

  // Makes the chunk that holds `offset` part of the file, unless it is. Zeros where none is stored.
  Status Load(uint64_t offset);
  // All that is stored; then the store is not needed any more, and nothing need be loaded. One
  // thread at a time.
  Status LoadAll();

 private:
  struct Chunk {
    uint32_t number;
    uint32_t pack;
    PackEntry entry;
  };
  ColdImage() = default;
  Status LoadLocked(uint64_t number);

  UniqueFd file_;
  uint64_t image_bytes_ = 0;
  std::vector<Chunk> chunks_;  // by number
  std::vector<Pack> packs_;
  std::vector<PageRun> data_runs_;
  std::mutex mutex_;
  std::vector<bool> loaded_;
};

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_COLD_IMAGE_H_
