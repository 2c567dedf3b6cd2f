#ifndef CUBE_SNAPSHOT_SNAPSHOT_WRITER_H_
#define CUBE_SNAPSHOT_SNAPSHOT_WRITER_H_

#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
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
  // `path` must not exist; its parent folder must. `about` has the machine's shape; the rest of it
  // is filled in here.
  static Result<SnapshotWriter> Create(const std::string& path, Manifest about);
  SnapshotWriter(SnapshotWriter&&) = default;
  SnapshotWriter& operator=(SnapshotWriter&&) = delete;
  ~SnapshotWriter();

  // The whole memory.
  Status WriteBase(const vmm::MachineState& state, const vmm::GuestMemory& memory);
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

 private:
  SnapshotWriter(std::string path, std::string temporary, UniqueFd folder, Manifest manifest)
      : path_(std::move(path)),
        temporary_(std::move(temporary)),
        folder_(std::move(folder)),
        manifest_(std::move(manifest)) {}
  Result<UniqueFd> CreateFile(const char* name);
  Status WriteState(const vmm::MachineState& state);

  std::string path_;
  std::string temporary_;
  UniqueFd folder_;
  Manifest manifest_;
  std::vector<UniqueFd> files_;
};

// Deletes the snapshot in the folder `path`: in one step, as seen by whoever looks for it there. What
// is left of it if this process dies meanwhile is as what a writer leaves that died.
Status RemoveSnapshot(const std::string& path);

// Deletes what writers that died have left in `folder`.
void RemoveUnpublished(const std::string& folder);

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_SNAPSHOT_WRITER_H_
