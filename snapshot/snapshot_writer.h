#ifndef CUBE_SNAPSHOT_SNAPSHOT_WRITER_H_
#define CUBE_SNAPSHOT_SNAPSHOT_WRITER_H_

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "snapshot/cold_index.h"
#include "snapshot/manifest.h"
#include "snapshot/memory_file.h"
#include "snapshot/snapshot.h"
#include "vmm/guest_memory.h"
#include "vmm/machine_state.h"

namespace cube::snapshot {

// Writes a snapshot beside the place where it is to be and moves it there in one step, so that a
// crash at any point leaves all of it or nothing under its name. What was not published is deleted.
class SnapshotWriter {
 public:
  // `path` must not exist; its parent folder must, in which what writers that died have left is
  // deleted. `about` has the machine's shape; the rest of it is filled in here. With an id it is
  // another form of the snapshot with that one.
  static Result<SnapshotWriter> Create(const std::string& path, Manifest about);
  SnapshotWriter(SnapshotWriter&&) = default;
  SnapshotWriter& operator=(SnapshotWriter&&) = delete;
  ~SnapshotWriter();

  // The whole memory, of which `runs`, sorted, are what can be anything but zeros.
  Status WriteBase(const vmm::MachineState& state, const vmm::GuestMemory& memory,
                   const std::vector<PageRun>& runs);
  // All that `snapshot` and its parents hold.
  Status WriteFlat(const Snapshot& snapshot);
  // Memory that is in the page store which `path` is in.
  Status WriteCold(const vmm::MachineState& state, const ColdIndex& index);
  // `runs` of the memory, sorted: what differs from `parent`.
  Status WriteDiff(const vmm::MachineState& state, const vmm::GuestMemory& memory,
                   const std::vector<PageRun>& runs, const Snapshot& parent);
  // What the disks held when the memory was as it is written, in the order of the machine's; before
  // Publish(). With a parent only what differs from it.
  Status WriteDisks(const std::vector<::cube::devices::blk::DiskStack>& disks,
                    const Snapshot* parent);
  // `durable`: on the disk when this returns. The id of the snapshot.
  Result<std::string> Publish(bool durable);

  const Manifest& manifest() const { return manifest_; }
  // When Publish() had all on the disk but its name, CLOCK_MONOTONIC nanoseconds; 0 if it did not.
  uint64_t synced_at() const { return synced_at_; }

 private:
  SnapshotWriter(std::string path, std::string temporary, UniqueFd folder, Manifest manifest)
      : path_(std::move(path)),
        temporary_(std::move(temporary)),
        folder_(std::move(folder)),
        manifest_(std::move(manifest)) {}
  Result<UniqueFd> CreateFile(const char* name);
  Status WriteState(const vmm::MachineState& state);
  Status Sync();
  Status WriteBaseBy(const vmm::MachineState& state,
                     const std::function<Result<MemoryFileInfo>(int fd)>& write);

  std::string path_;
  std::string temporary_;
  UniqueFd folder_;
  Manifest manifest_;
  std::vector<UniqueFd> files_;
  uint64_t synced_at_ = 0;
};

// Deletes the snapshot in the folder `path`: in one step, as seen by whoever looks for it there.
// What is left of it if this process dies meanwhile is as what a writer leaves that died.
Status RemoveSnapshot(const std::string& path);

// Deletes what writers of this user that died have left in `folder`. Never what one that lives is
// writing.
void RemoveUnpublished(const std::string& folder);

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_SNAPSHOT_WRITER_H_
