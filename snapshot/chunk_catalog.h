#ifndef CUBE_SNAPSHOT_CHUNK_CATALOG_H_
#define CUBE_SNAPSHOT_CHUNK_CATALOG_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "snapshot/store_pack.h"

namespace cube::snapshot {

// The chunks of a store and those being added to it, found by what is in them. One thread.
class ChunkCatalog {
 public:
  // `packs` are all that there are; new ones are written to `folder`.
  ChunkCatalog(std::vector<Pack> packs, std::string folder);

  // The key of a chunk with these bytes: one that is there, and has been compared byte for byte, or
  // else a new one that is written now.
  Result<ChunkKey> Put(std::span<const uint8_t> bytes);
  // Publishes what was written.
  Status Finish();

  uint64_t stored() const { return stored_; }
  uint64_t written() const { return written_; }

 private:
  // Chunks of one hash that are compared at most. More of them exist only by malice, and are then
  // stored once for each use rather than compared with all that came before.
  static constexpr size_t kMaxCompared = 8;
  // `pack` of the one being written.
  static constexpr uint32_t kWriter = UINT32_MAX;

  struct Place {
    uint32_t pack;
    PackEntry entry;
  };
  struct SameHash {
    uint32_t next_ordinal = 0;
    std::vector<Place> places;
  };
  struct HashOf {
    size_t operator()(const ChunkKey& key) const { return key.hash_low; }
  };

  void Note(uint32_t pack, const PackEntry& entry);
  Status CloseWriter();

  std::vector<Pack> packs_;
  std::string folder_;
  std::unordered_map<ChunkKey, SameHash, HashOf> chunks_;  // by key with ordinal 0
  std::optional<PackWriter> writer_;
  uint64_t stored_ = 0;
  uint64_t written_ = 0;
};

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_CHUNK_CATALOG_H_
