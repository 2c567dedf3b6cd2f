#include "snapshot/cold_index.h"

#include <xxhash.h>

#include <cstring>

namespace cube::snapshot {
namespace {

constexpr char kMagic[8] = {'C', 'U', 'B', 'E', 'C', 'O', 'L', 'D'};
constexpr uint32_t kVersion = 1;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t chunk_size;
  uint64_t image_bytes;
  uint64_t entry_count;
  uint64_t xxh3;  // of all that is here but this: what is before, and the entries
};
static_assert(sizeof(Header) == 40 && sizeof(ColdIndex::Entry) == 24);

uint64_t Checksum(const Header& header, std::span<const uint8_t> entries) {
  uint64_t front = XXH3_64bits(&header, offsetof(Header, xxh3));
  return XXH3_64bits_withSeed(entries.data(), entries.size(), front);
}

}  // namespace

std::vector<uint8_t> ColdIndex::Encode() const {
  Header header = {};
  memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.chunk_size = kChunkSize;
  header.image_bytes = image_bytes;
  header.entry_count = entries.size();
  std::span<const uint8_t> body{reinterpret_cast<const uint8_t*>(entries.data()),
                                entries.size() * sizeof(Entry)};
  header.xxh3 = Checksum(header, body);
  std::vector<uint8_t> bytes(sizeof header + body.size());
  memcpy(bytes.data(), &header, sizeof header);
  if (!body.empty()) memcpy(bytes.data() + sizeof header, body.data(), body.size());
  return bytes;
}

Result<ColdIndex> ColdIndex::Decode(std::span<const uint8_t> bytes) {
  Header header;
  if (bytes.size() < sizeof header) return Errorf("cut off after %zu bytes", bytes.size());
  memcpy(&header, bytes.data(), sizeof header);
  if (memcmp(header.magic, kMagic, sizeof kMagic) != 0) return Errorf("not a cold memory's index");
  if (header.version != kVersion || header.chunk_size != kChunkSize) {
    return Errorf("of version %u with chunks of %u bytes, this is version %u with %u",
                  header.version, header.chunk_size, kVersion, kChunkSize);
  }
  std::span<const uint8_t> body = bytes.subspan(sizeof header);
  if (header.entry_count > kMaxSize / sizeof(Entry) ||
      body.size() != header.entry_count * sizeof(Entry)) {
    return Errorf("%llu entries announced, %zu bytes of them there",
                  static_cast<unsigned long long>(header.entry_count), body.size());
  }
  if (Checksum(header, body) != header.xxh3) return Errorf("does not match its checksum");
  ColdIndex index;
  index.image_bytes = header.image_bytes;
  index.entries.resize(header.entry_count);
  if (!body.empty()) memcpy(index.entries.data(), body.data(), body.size());
  uint64_t chunks = header.image_bytes / kChunkSize + (header.image_bytes % kChunkSize != 0);
  uint64_t next = 0;
  for (const Entry& entry : index.entries) {
    if (entry.number < next || entry.number >= chunks) {
      return Errorf("chunk %u is out of order, or beyond the image's %llu", entry.number,
                    static_cast<unsigned long long>(chunks));
    }
    next = uint64_t{entry.number} + 1;
  }
  return index;
}

}  // namespace cube::snapshot
