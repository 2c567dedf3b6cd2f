#ifndef CUBE_DEVICES_BLK_OVERLAY_FILE_H_
#define CUBE_DEVICES_BLK_OVERLAY_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/blk/block_bitmap.h"

namespace cube::devices::blk {

// The blocks of a disk that differ from what lies below: a sparse file of a header, a bitmap that
// says which blocks it has, and the blocks, each as far into the data as it is into the disk.
//
// The file is never wrong, whenever the process or the host dies: a block's bit goes into the file
// only after its data is on stable storage, so a file has what was last committed, and perhaps data
// without a bit, which nobody reads. Layout, little-endian:
//
//        0  header (OverlayHeader), zeros up to 4096
//     4096  bitmap, a bit a block, zeros up to a multiple of 4096
//     then  the blocks; the file ends where the disk does
class OverlayFile {
 public:
  static constexpr uint32_t kDefaultBlockSize = 4096;
  static constexpr uint32_t kMinBlockSize = 4096;
  static constexpr uint32_t kMaxBlockSize = 1 << 20;
  static constexpr uint64_t kMaxDiskSize = uint64_t{1} << 44;

  enum class Access {
    kReadOnly,  // a layer; more than one process may have it
    kWrite,     // the overlay of one process, which others are kept from opening
  };

  // A new file, or one that is there but empty, without any block. `disk_size` is a multiple of
  // 512, in bytes.
  static Result<OverlayFile> Create(const std::string& path, uint64_t disk_size,
                                    uint32_t block_size = kDefaultBlockSize);
  // A new file without a name in `folder`, gone with its last descriptor. Nobody can find it after
  // a crash, so nothing of it is ever synced. It can be given a name once it is sealed.
  static Result<OverlayFile> CreateTemporary(const std::string& folder, uint64_t disk_size,
                                             uint32_t block_size = kDefaultBlockSize);
  // What Create() made, for a disk of the same size. Everything in the file is checked; a frozen
  // one cannot be written.
  static Result<OverlayFile> Open(const std::string& path, uint64_t disk_size, Access access);

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }
  bool temporary() const { return temporary_; }
  uint64_t disk_size() const { return disk_size_; }
  uint32_t block_size() const { return block_size_; }
  // Where a byte of the disk lies in the file, if its block is present.
  uint64_t FileOffset(uint64_t disk_offset) const { return data_offset_ + disk_offset; }
  const BlockBitmap& present() const { return bitmap_; }
  // Blocks whose data has been written to the file. The file learns of it by a commit.
  void SetPresent(uint64_t first, uint64_t count) { bitmap_.Set(first, count); }

  // A commit in steps, for who cannot wait: fdatasync(2), then each piece to its place in the file,
  // then fdatasync(2) again. Blocks set meanwhile belong to the next one.
  struct Piece {
    uint64_t file_offset;
    uint32_t chunk;
    std::vector<uint8_t> bytes;
  };
  bool uncommitted() const { return bitmap_.dirty(); }
  std::vector<Piece> TakeUncommitted();
  // A commit that failed: its pieces belong to the next one.
  void PutBack(const std::vector<Piece>& pieces);
  // A commit at once.
  Status Commit();

  // Commits, and makes the file a layer: it is never written again, by this process or another.
  Status Freeze();
  // Makes the file a layer without syncing it: all bits and the header are written. For a file that
  // nobody writes any more; also in another process that has it.
  Status Seal() const;
  // Gives a sealed temporary file the name `path`; false if it is of another file system, or has had a
  // name and lost it.
  Result<bool> Link(const std::string& path) const;
  // Forgets every block, in the file first.
  Status Reset();

 private:
  OverlayFile(UniqueFd fd, std::string path, uint64_t disk_size, uint32_t block_size,
              BlockBitmap bitmap);
  Status Initialise();
  Status LoadBitmap();
  Status WriteHeader(uint32_t state) const;

  UniqueFd fd_;
  std::string path_;
  uint64_t disk_size_;
  uint32_t block_size_;
  BlockBitmap bitmap_;
  uint64_t data_offset_;
  bool temporary_ = false;
};

// Keeps other processes from writing to a file that is read, or from using one that is written.
// The lock goes with the descriptor.
Status LockFile(int fd, bool exclusive, const std::string& path);

}  // namespace cube::devices::blk

#endif  // CUBE_DEVICES_BLK_OVERLAY_FILE_H_
