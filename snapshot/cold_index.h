#ifndef CUBE_SNAPSHOT_COLD_INDEX_H_
#define CUBE_SNAPSHOT_COLD_INDEX_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "snapshot/store_pack.h"

namespace cube::snapshot {

// The file `memory.cold`: which chunks of the store a memory image is made of. Chunks of zeros are
// not in it.
struct ColdIndex {
  // A chunk of the image, which begins at number * kChunkSize. As in the file.
  struct Entry {
    uint32_t number;
    uint32_t ordinal;
    uint64_t hash_high;
    uint64_t hash_low;

    ChunkKey key() const { return {hash_high, hash_low, ordinal}; }
  };
  // The longest index of a memory of 512 GiB, without which a reader would take any length.
  static constexpr size_t kMaxSize = 512ull << 20;

  uint64_t image_bytes = 0;
  std::vector<Entry> entries;  // by number

  std::vector<uint8_t> Encode() const;
  // `bytes` may be anything: an error says what is wrong. Entries are sorted and within the image.
  static Result<ColdIndex> Decode(std::span<const uint8_t> bytes);
};

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_COLD_INDEX_H_
