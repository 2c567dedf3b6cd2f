#ifndef CUBE_SNAPSHOT_STORE_PACK_H_
#define CUBE_SNAPSHOT_STORE_PACK_H_

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::snapshot {

// Bytes of memory in a chunk, at most: the last one of an image may be shorter. Half of it would
// save one per cent of the space and double the index and the faults of a lazy restore
// (docs/snapshots.md).
inline constexpr uint32_t kChunkSize = 32768;

// What a chunk is called: xxh3-128 of its bytes, and a number that tells apart chunks whose bytes
// differ all the same. A guest can make such chunks at will, so equal hashes prove nothing.
struct ChunkKey {
  uint64_t hash_high = 0;
  uint64_t hash_low = 0;
  uint32_t ordinal = 0;

  auto operator<=>(const ChunkKey&) const = default;
  std::string Name() const;
};

// The key with ordinal 0.
ChunkKey HashChunk(std::span<const uint8_t> bytes);

// Where a chunk lies in its pack. As in the file.
struct PackEntry {
  uint64_t hash_high;
  uint64_t hash_low;
  uint64_t offset;
  uint32_t ordinal;
  uint32_t raw_size;     // 1 to kChunkSize
  uint32_t stored_size;  // lz4 (block format), or as it is if no smaller: raw_size
  uint32_t reserved;

  ChunkKey key() const { return {hash_high, hash_low, ordinal}; }
};

// A pack: a file of chunks, written once, with an index at its end that is sorted by key.
// Immutable, any thread.
class Pack {
 public:
  static constexpr size_t kMaxEntries = 1 << 18;

  // Checks header, index and every entry's bounds; the chunks themselves when they are read.
  static Result<Pack> Open(const std::string& path);
  // The same from an open file, which `name` stands for in errors.
  static Result<Pack> Open(UniqueFd file, const std::string& name);

  const std::string& name() const { return name_; }
  const std::vector<PackEntry>& entries() const { return entries_; }
  uint64_t file_bytes() const { return file_bytes_; }
  // The entry with that key, or null.
  const PackEntry* Find(const ChunkKey& key) const;
  // Forgets the entries, which somebody else has copied.
  void DropEntries() { std::vector<PackEntry>().swap(entries_); }

  // Reads a chunk of `entry.raw_size` bytes to the start of `out`, of kChunkSize, and holds it
  // against its hash. The error names the chunk.
  Status Read(const PackEntry& entry, std::span<uint8_t> out) const;
  // The bytes as they are stored.
  Status ReadStored(const PackEntry& entry, std::span<uint8_t> out) const;

 private:
  Pack(UniqueFd file, std::string name, uint64_t file_bytes, std::vector<PackEntry> entries)
      : file_(std::move(file)),
        name_(std::move(name)),
        file_bytes_(file_bytes),
        entries_(std::move(entries)) {}

  UniqueFd file_;
  std::string name_;
  uint64_t file_bytes_;
  std::vector<PackEntry> entries_;
};

// Writes a pack beside its place in `folder` and moves it there when it is whole and on the disk.
class PackWriter {
 public:
  static Result<PackWriter> Create(const std::string& folder);
  PackWriter(PackWriter&& other) = default;
  PackWriter& operator=(PackWriter&&) = delete;
  // What was not published is deleted.
  ~PackWriter();

  bool full() const { return entries_.size() >= Pack::kMaxEntries; }
  const std::vector<PackEntry>& entries() const { return entries_; }  // in the order of writing

  // Compresses and appends a chunk.
  Result<PackEntry> Append(const ChunkKey& key, std::span<const uint8_t> raw);
  // Appends a chunk that another pack has stored already.
  Result<PackEntry> AppendStored(PackEntry entry, std::span<const uint8_t> stored);
  // A chunk of this pack, as Pack::Read().
  Status Read(const PackEntry& entry, std::span<uint8_t> out) const;
  // The pack's path, and its length.
  Result<std::string> Publish();
  uint64_t file_bytes() const { return offset_; }

 private:
  PackWriter(std::string folder, std::string temporary, UniqueFd file)
      : folder_(std::move(folder)), temporary_(std::move(temporary)), file_(std::move(file)) {}
  Status Put(std::span<const uint8_t> bytes);
  Status Flush();

  std::string folder_;
  std::string temporary_;
  UniqueFd file_;
  std::vector<PackEntry> entries_;
  std::vector<uint8_t> buffer_;  // what comes after flushed_
  std::vector<uint8_t> compressed_;
  uint64_t flushed_ = 0;
  uint64_t offset_ = 0;
};

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_STORE_PACK_H_
