#ifndef CUBE_DEVICES_BLK_DISK_H_
#define CUBE_DEVICES_BLK_DISK_H_

#include <cstdint>
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

  uint64_t size() const { return size_; }  // bytes, a multiple of 512
  bool read_only() const { return read_only_; }

  // Appends where [offset, offset + size), a part of the disk, is to be read.
  void Map(uint64_t offset, uint64_t size, std::vector<Extent>* extents) const;

  // The file that takes what is written, and where in it; of a disk that may be written.
  int write_fd() const { return overlay_ ? overlay_->fd() : base_.get(); }
  uint64_t WriteOffset(uint64_t offset) const {
    return overlay_ ? overlay_->FileOffset(offset) : offset;
  }

  // The overlay, if there is one: its blocks are those written since the last freeze.
  OverlayFile* overlay() { return overlay_ ? &*overlay_ : nullptr; }
  const OverlayFile* overlay() const { return overlay_ ? &*overlay_ : nullptr; }
  // Lowest first.
  const std::vector<OverlayFile>& layers() const { return layers_; }

  // For snapshots, while no request is under way. Freeze makes the overlay the topmost layer and
  // goes on with a new one at `path`; if it fails, the disk is as it was. Reset forgets what was
  // written since the last freeze.
  Status Freeze(const std::string& path);
  Status Reset();

 private:
  Disk() = default;

  UniqueFd base_;
  uint64_t size_ = 0;
  bool read_only_ = false;
  std::vector<OverlayFile> layers_;
  std::optional<OverlayFile> overlay_;
};

// Writes what the disk holds to the file `path`, which is made or overwritten, as a raw and sparse
// image.
Status FlattenDisk(const Disk& disk, const std::string& path);

}  // namespace cube::devices::blk

#endif  // CUBE_DEVICES_BLK_DISK_H_
