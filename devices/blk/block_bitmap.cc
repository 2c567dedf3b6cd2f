#include "devices/blk/block_bitmap.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace cube::devices::blk {
namespace {

constexpr uint64_t kChunkBits = BlockBitmap::kChunk * 8;

}  // namespace

Result<BlockBitmap> BlockBitmap::Create(uint64_t blocks) {
  uint64_t chunks = std::max<uint64_t>(1, (blocks + kChunkBits - 1) / kChunkBits);
  CUBE_ASSIGN(Mapping bits,
              Mapping::Map(chunks * kChunk, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, "a block bitmap"));
  return BlockBitmap(std::move(bits), blocks);
}

BlockBitmap::BlockBitmap(Mapping bits, uint64_t blocks)
    : bits_(std::move(bits)), blocks_(blocks), dirty_(bits_.size() / kChunk) {}

uint64_t BlockBitmap::RunLength(uint64_t first, uint64_t count) const {
  // Of a run of zeros every word is turned over, so that the run's end is always a zero.
  const uint64_t flip = Get(first) ? 0 : ~uint64_t{0};
  uint64_t length = 0;
  while (length < count) {
    uint64_t bit = (first + length) % 64;
    auto ones = static_cast<uint64_t>(std::countr_one((Word((first + length) / 64) ^ flip) >> bit));
    ones = std::min(ones, 64 - bit);
    length += ones;
    if (bit + ones < 64) break;
  }
  return std::min(length, count);
}

uint64_t BlockBitmap::Count() const {
  uint64_t count = 0;
  for (uint64_t i = 0; i < bits_.size() / 8; ++i) {
    count += static_cast<uint64_t>(std::popcount(Word(i)));
  }
  return count;
}

void BlockBitmap::Set(uint64_t first, uint64_t count) {
  auto* words = reinterpret_cast<uint64_t*>(bits_.data());
  for (uint64_t block = first; block < first + count;) {
    uint64_t bit = block % 64;
    uint64_t here = std::min(64 - bit, first + count - block);
    uint64_t mask = (here == 64 ? ~uint64_t{0} : (uint64_t{1} << here) - 1) << bit;
    uint64_t& word = words[block / 64];
    if ((word & mask) != mask) {
      word |= mask;
      MarkDirty(static_cast<uint32_t>(block / kChunkBits));
    }
    block += here;
  }
}

void BlockBitmap::Clear() {
  // Fresh pages, so that the memory is given back too. Nothing can fail in a mapping that is there.
  madvise(bits_.data(), bits_.size(), MADV_DONTNEED);
  std::fill(dirty_.begin(), dirty_.end(), false);
  any_dirty_ = false;
}

bool BlockBitmap::LoadChunk(uint64_t chunk, std::span<const uint8_t> bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] == 0) continue;
    uint64_t block = (chunk * kChunk + i) * 8;
    if (block >= blocks_) return false;
    if (blocks_ - block < 8 && (bytes[i] >> (blocks_ - block)) != 0) return false;
    bits_.data()[chunk * kChunk + i] = bytes[i];
  }
  return true;
}

std::vector<uint32_t> BlockBitmap::TakeDirty() {
  std::vector<uint32_t> chunks;
  if (!any_dirty_) return chunks;
  for (size_t i = 0; i < dirty_.size(); ++i) {
    if (dirty_[i]) chunks.push_back(static_cast<uint32_t>(i));
    dirty_[i] = false;
  }
  any_dirty_ = false;
  return chunks;
}

}  // namespace cube::devices::blk
