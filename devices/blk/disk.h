#ifndef CUBE_DEVICES_BLK_DISK_H_
#define CUBE_DEVICES_BLK_DISK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/blk/overlay_file.h"

namespace cube::devices::blk {

// What a disk is made of: a raw image, any number of frozen layers over it, the lowest first, and
// at most one overlay, which takes what is written.
struct DiskFiles {
  std::string base;
  std::vector<std::string> layers;
  // Made if it is not there, or is empty. Without one, and without layers, the base is written.
  std::string overlay;
  bool read_only = false;
  uint32_t new_block_size = OverlayFile::kDefaultBlockSize;  // of an overlay that is made
};

// What lies under the overlay of a disk, and is not written: an image and frozen layers, the lowest
// first. Immutable, and shared by any number of disks, also of processes forked from this one.
struct DiskStack {
  std::shared_ptr<const UniqueFd> image;
  uint64_t size = 0;  // bytes, a multiple of 512
  std::vector<std::shared_ptr<const OverlayFile>> layers;

  // Of its files.
  std::vector<int> descriptors() const;
};

// Where the bytes of a disk are: it answers which file has what and takes note of what was written,
// but moves no data itself.
class Disk {
 public:
  // A part of the disk, in one file.
  struct Extent {
    int fd;
    uint64_t file_offset;
    uint64_t size;
  };

  // Every error names the file.
  static Result<Disk> Open(const DiskFiles& files);
  // A disk that cannot be written.
  static Result<Disk> Over(DiskStack stack);
  // A disk with `overlay`, an empty one of a disk of that size.
  static Result<Disk> Over(DiskStack stack, OverlayFile overlay);

  uint64_t size() const { return stack_.size; }  // bytes, a multiple of 512
  bool read_only() const { return read_only_; }

  // Appends where [offset, offset + size), a part of the disk, is to be read.
  void Map(uint64_t offset, uint64_t size, std::vector<Extent>* extents) const;

  // The file that takes what is written, and where in it; of a disk that may be written.
  int write_fd() const { return overlay_ ? overlay_->fd() : stack_.image->get(); }
  uint64_t WriteOffset(uint64_t offset) const {
    return overlay_ ? overlay_->FileOffset(offset) : offset;
  }

  // The overlay, if there is one: its blocks are those written since the last freeze.
  OverlayFile* overlay() { return overlay_ ? &*overlay_ : nullptr; }
  const OverlayFile* overlay() const { return overlay_ ? &*overlay_ : nullptr; }
  // Lowest first.
  const std::vector<std::shared_ptr<const OverlayFile>>& layers() const { return stack_.layers; }
  const DiskStack& stack() const { return stack_; }

  // For snapshots, while no request is under way. Freeze makes the overlay the topmost layer and
  // goes on with a new one at `path`; if it fails, the disk is as it was. Reset forgets what was
  // written since the last freeze.
  Status Freeze(const std::string& path);
  Status Reset();
  // Makes the overlay, a temporary one, the topmost layer as it is, and goes on with `next`. Of
  // that layer nothing but its blocks is in the file yet (OverlayFile::Seal).
  Status RollOver(OverlayFile next);
  // What the disk holds now, as a stack that stays so whatever is written from here on. A temporary
  // overlay becomes a layer (see RollOver), if it has anything; of another one the blocks are
  // copied. New files are made in `folder`. An image that is written itself cannot be captured.
  Result<DiskStack> Capture(const std::string& folder);
  // Goes on with other layers of the same size and an empty overlay: what was written is gone.
  Status Rebase(DiskStack stack);
  // Has one layer in the place of those from `first` on, which together hold the same.
  void Squash(size_t first, size_t count, std::shared_ptr<const OverlayFile> layer);

 private:
  Disk() = default;

  DiskStack stack_;
  bool read_only_ = false;
  std::optional<OverlayFile> overlay_;
};

// Puts into `to` the blocks that any of `from` has, the lowest first. All have blocks of one size.
Status CopyBlocks(const std::vector<const OverlayFile*>& from, OverlayFile* to);

// Writes what the disk holds to the file `path`, which is made or overwritten, as a raw and sparse
// image.
Status FlattenDisk(const Disk& disk, const std::string& path);

}  // namespace cube::devices::blk

#endif  // CUBE_DEVICES_BLK_DISK_H_
