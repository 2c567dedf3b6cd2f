#ifndef CUBE_DEVICES_BLK_BLOCK_BITMAP_H_
#define CUBE_DEVICES_BLK_BLOCK_BITMAP_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"

namespace cube::devices::blk {

// One bit for each block of a disk. Memory is used only where bits are set: a bitmap nobody has
// written to costs nothing, whatever the size of the disk.
class BlockBitmap {
 public:
  // Bytes of the bitmap that change hands with its file at once.
  static constexpr uint64_t kChunk = 4096;

  static Result<BlockBitmap> Create(uint64_t blocks);

  uint64_t blocks() const { return blocks_; }
  bool Get(uint64_t block) const { return (Word(block / 64) >> (block % 64) & 1) != 0; }
  // Of [first, first + count), how many from the start on have the same bit as the first. `count`
  // is at least 1.
  uint64_t RunLength(uint64_t first, uint64_t count) const;
  // How many bits are set.
  uint64_t Count() const;
  // Sets the bits, and remembers the chunks in which one has changed.
  void Set(uint64_t first, uint64_t count);
  void Clear();

  // The bitmap as bytes, block 0 in the lowest bit of the first, and zeros up to a whole chunk.
  std::span<const uint8_t> bytes() const { return bits_.span(); }
  // Sets bits from a chunk of a file; false if it has one beyond the last block. Not remembered.
  bool LoadChunk(uint64_t chunk, std::span<const uint8_t> bytes);
  // The chunks that have changed since the last call, ascending.
  std::vector<uint32_t> TakeDirty();
  void MarkDirty(uint32_t chunk) { dirty_[chunk] = any_dirty_ = true; }
  bool dirty() const { return any_dirty_; }

 private:
  BlockBitmap(Mapping bits, uint64_t blocks);
  uint64_t Word(uint64_t index) const {
    return reinterpret_cast<const uint64_t*>(bits_.data())[index];
  }

  Mapping bits_;
  uint64_t blocks_;
  std::vector<bool> dirty_;  // by chunk
  bool any_dirty_ = false;
};

}  // namespace cube::devices::blk

#endif  // CUBE_DEVICES_BLK_BLOCK_BITMAP_H_
