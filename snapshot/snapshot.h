#ifndef CUBE_SNAPSHOT_SNAPSHOT_H_
#define CUBE_SNAPSHOT_SNAPSHOT_H_

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/blk/disk.h"
#include "snapshot/cold_image.h"
#include "snapshot/lazy_server.h"
#include "snapshot/manifest.h"
#include "snapshot/memory_file.h"
#include "vmm/guest_memory.h"
#include "vmm/machine_state.h"

namespace cube::snapshot {

// A published snapshot, opened and checked: its state is in memory, the memory and disk
// files of it and all its parents are open. What it names may be deleted meanwhile; this goes on
// working. Immutable; any thread, and children of a fork.
class Snapshot {
 public:
  // Parents of parents at most.
  static constexpr size_t kMaxDepth = 64;

  // The memory files of it and its parents are locked for as long as a process has them open
  // (flock, shared; children of a fork count): whoever would delete it can tell that it is in use.
  //
  // Trusts nothing in the folder `path`: an error names the file and what is wrong with it. Memory
  // files are read through, to hold them against their checksum, unless they are as they were when
  // that was last done (by file, size and time of change; kept beside them). Memory in a page store
  // is loaded, each chunk held against its hash.
  static Result<Snapshot> Open(const std::string& path);
  // The same, but for memory in a page store, which is loaded as it is touched. `failed`: see
  // LazyServer. Not for children of a fork before LoadAll().
  static Result<Snapshot> OpenLazily(const std::string& path, LazyServer::Failed failed);

  const std::string& path() const { return path_; }
  const Manifest& manifest() const { return manifest_; }
  const vmm::MachineState& state() const { return state_; }

  // The files that are open, for a child of a fork that closes what it does not need.
  std::vector<int> descriptors() const;

  // What lies under each of the machine's disks, in their order: images, and the layers of parents
  // and this. For any number of clones.
  const std::vector<::cube::devices::blk::DiskStack>& disks() const { return disks_; }

  // The memory as it was, mapped privately: what is written is the caller's alone.
  Result<vmm::GuestMemory> MapMemory() const;
  // Of long runs of diffs, which are rarely in the page cache, single pages are read when they are
  // touched, until ReadAhead(): what a machine needs of them before it is ready is little, and what
  // lies around it would be megabytes. Then it is as with any file.
  static void ReadAhead(const vmm::GuestMemory& memory);
  // Maps stretches of `memory` anew, so that they are as they were: what a machine that came from
  // this snapshot, or from a descendant of it, has changed. `runs` are sorted.
  Status MapRuns(const vmm::GuestMemory& memory, const std::vector<PageRun>& runs) const;
  // The same for all of it.
  Status MapAll(const vmm::GuestMemory& memory) const;

  // If it was opened lazily: loads what is not yet there. Before a process with this memory is
  // forked, and before Read(). One thread at a time.
  Status LoadAll() const;

  uint64_t image_bytes() const { return vmm::GuestMemory::ImageSize(manifest_.memory_bytes); }
  // Where the memory image can be anything but zeros: sorted, whole pages.
  Result<std::vector<PageRun>> DataRuns() const;
  // The stretches of the image that are zeros and mapped without a file: sorted, whole pages.
  std::vector<PageRun> AnonymousRuns() const;
  // Copies a part of the image, which must be within it.
  Status Read(uint64_t offset, std::span<uint8_t> out) const;

 private:
  struct Layer {
    int fd() const { return cold != nullptr ? cold->fd() : memory->get(); }

    std::shared_ptr<UniqueFd> memory;
    std::vector<PlacedRun> runs;  // none for the base
    std::vector<PageRun> data;    // of the base: what is mapped from the file, the rest being zeros
    // Of a base in a page store, instead of `memory`.
    std::shared_ptr<ColdImage> cold;
    std::shared_ptr<LazyServer> lazy;
  };

  Snapshot() = default;
  // `children`: the ids of those that build on it, from the one that was asked for. `failed` of
  // null: not lazily.
  static Result<Snapshot> OpenAt(const std::string& path, std::vector<std::string>* children,
                                 const LazyServer::Failed* failed);
  Status OpenMemory(const std::string& path);
  Status OpenDisks(const Snapshot* parent);
  Status OpenDisk(const DiskHardware& disk, ::cube::devices::blk::DiskStack stack);
  Status OpenCold(const std::string& path, const LazyServer::Failed* failed);
  // Calls `use` for each part of [start, start + size) that a layer above the base has.
  template <typename Use>
  Status ForLayers(uint64_t start, uint64_t size, Use use) const;
  Status MapBase(const vmm::GuestMemory& memory, const PageRun& run) const;

  std::string path_;
  Manifest manifest_;
  vmm::MachineState state_;
  std::vector<Layer> layers_;  // the base first
  std::vector<::cube::devices::blk::DiskStack> disks_;
};

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_SNAPSHOT_H_
