#ifndef CUBE_VMM_CLI_MACHINE_DISKS_H_
#define CUBE_VMM_CLI_MACHINE_DISKS_H_

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "devices/blk/disk.h"
#include "devices/fs/fs.h"
#include "devices/net/net.h"
#include "snapshot/snapshot.h"
#include "vmm/machine.h"

namespace cube::vmm {

// The disks of a machine as snapshots see them. All of it while the machine's devices have finished
// what was under way (Machine::Save, Machine::Quiesce).

// They come first among its devices.
std::vector<::cube::devices::blk::Disk*> DisksOf(const Machine& machine);
// Those without a directory until they are given one, in the order of their tags.
std::vector<::cube::devices::fs::FsDevice*> VolumeSharesOf(const Machine& machine);
// eth0, eth1, ...
std::vector<::cube::devices::Net*> NicsOf(const Machine& machine);

// What they hold now, each as a stack that stays so. `base` is what the machine was cloned from, or
// null. Layers that snapshots have left above it are made one when there are many.
Result<std::vector<::cube::devices::blk::DiskStack>> CaptureDisks(
    Machine* machine, const snapshot::Hardware& hardware, const snapshot::Snapshot* base);

// Puts them back to what they were in `target`.
Status RebaseDisks(Machine* machine, const snapshot::Snapshot& target);

// What the disks of a diff were made of, and over what.
struct CapturedDisks {
  std::vector<::cube::devices::blk::DiskStack> stacks;
  std::shared_ptr<const snapshot::Snapshot> base;

  // Has the layers of the diff, published at `path`, in the place of those that were captured,
  // where the disk still has them. What cannot be done is left as it is: it works all the same.
  void Squash(const std::vector<::cube::devices::blk::Disk*>& disks,
              const snapshot::Hardware& hardware, const std::string& path) const;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_MACHINE_DISKS_H_
