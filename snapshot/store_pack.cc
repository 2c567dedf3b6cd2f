#include "snapshot/store_pack.h"

#include <fcntl.h>
#include <lz4.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "base/byte_io.h"
#include "snapshot/manifest.h"
#include "snapshot/publish.h"

namespace cube::snapshot {
namespace {

constexpr char kHeaderMagic[8] = {'C', 'U', 'B', 'E', 'P', 'A', 'C', 'K'};
constexpr char kFooterMagic[8] = {'C', 'U', 'B', 'E', 'P', 'E', 'N', 'D'};
constexpr uint32_t kVersion = 1;
constexpr size_t kBufferSize = 1 << 20;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t chunk_size;
};
struct Footer {
  uint64_t index_offset;
  uint64_t entry_count;
  uint64_t index_xxh3;
  char magic[8];
};
static_assert(sizeof(Header) == 16 && sizeof(Footer) == 32 && sizeof(PackEntry) == 40);

std::span<const uint8_t> BytesOf(const void* object, size_t size) {
  return {static_cast<const uint8_t*>(object), size};
}

Status Unpack(const PackEntry& entry, std::span<const uint8_t> stored, std::span<uint8_t> out,
              const std::string& where) {
  if (entry.stored_size == entry.raw_size) {
    memcpy(out.data(), stored.data(), entry.raw_size);
  } else {
    int size = LZ4_decompress_safe(
        reinterpret_cast<const char*>(stored.data()), reinterpret_cast<char*>(out.data()),
        static_cast<int>(entry.stored_size), static_cast<int>(entry.raw_size));
    if (size != static_cast<int>(entry.raw_size)) {
      return Errorf("%s: chunk %s is damaged: it cannot be decompressed", where.c_str(),
                    entry.key().Name().c_str());
    }
  }
  ChunkKey found = HashChunk(out.first(entry.raw_size));
  if (found.hash_high != entry.hash_high || found.hash_low != entry.hash_low) {
    return Errorf("%s: chunk %s is damaged: it does not match its hash", where.c_str(),
                  entry.key().Name().c_str());
  }
  return OkStatus();
}

}  // namespace

std::string ChunkKey::Name() const {
  return Format("%016llx%016llx.%u", static_cast<unsigned long long>(hash_high),
                static_cast<unsigned long long>(hash_low), ordinal);
}

ChunkKey HashChunk(std::span<const uint8_t> bytes) {
  XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.high64, hash.low64, 0};
}

Result<Pack> Pack::Open(const std::string& path) {
  CUBE_ASSIGN(UniqueFd file, OpenFile(path, O_RDONLY | O_NONBLOCK));
  return Open(std::move(file), path);
}

Result<Pack> Pack::Open(UniqueFd file, const std::string& name) {
  CUBE_ASSIGN(uint64_t size, RegularFileSize(file.get(), name.c_str()));
  if (size < sizeof(Header) + sizeof(Footer)) {
    return Errorf("%s is cut off after %llu bytes", name.c_str(),
                  static_cast<unsigned long long>(size));
  }
  Header header;
  CUBE_TRY(ReadExactAt(file.get(), {reinterpret_cast<uint8_t*>(&header), sizeof header}, 0,
                       name.c_str()));
  if (memcmp(header.magic, kHeaderMagic, sizeof kHeaderMagic) != 0) {
    return Errorf("%s is not a pack", name.c_str());
  }
  if (header.version != kVersion || header.chunk_size != kChunkSize) {
    return Errorf("%s is of version %u with chunks of %u bytes, this is version %u with %u",
                  name.c_str(), header.version, header.chunk_size, kVersion, kChunkSize);
  }
  Footer footer;
  CUBE_TRY(ReadExactAt(file.get(), {reinterpret_cast<uint8_t*>(&footer), sizeof footer},
                       size - sizeof footer, name.c_str()));
  if (memcmp(footer.magic, kFooterMagic, sizeof kFooterMagic) != 0 ||
      footer.entry_count > kMaxEntries || footer.index_offset < sizeof(Header) ||
      footer.index_offset > size ||
      size - footer.index_offset != footer.entry_count * sizeof(PackEntry) + sizeof(Footer)) {
    return Errorf("%s does not end as a pack does: it is cut off or damaged", name.c_str());
  }
  std::vector<PackEntry> entries(footer.entry_count);
  std::span<uint8_t> bytes{reinterpret_cast<uint8_t*>(entries.data()),
                           entries.size() * sizeof(PackEntry)};
  CUBE_TRY(ReadExactAt(file.get(), bytes, footer.index_offset, name.c_str()));
  if (XXH3_64bits(bytes.data(), bytes.size()) != footer.index_xxh3) {
    return Errorf("%s: its index does not match its checksum", name.c_str());
  }
  for (size_t i = 0; i < entries.size(); ++i) {
    const PackEntry& entry = entries[i];
    if (entry.raw_size == 0 || entry.raw_size > kChunkSize || entry.stored_size == 0 ||
        entry.stored_size > entry.raw_size || entry.offset < sizeof(Header) ||
        entry.offset > footer.index_offset ||
        entry.stored_size > footer.index_offset - entry.offset || entry.reserved != 0 ||
        (i > 0 && entries[i - 1].key() >= entry.key())) {
      return Errorf("%s: entry %zu of its index is not valid", name.c_str(), i);
    }
  }
  return Pack(std::move(file), name, size, std::move(entries));
}

const PackEntry* Pack::Find(const ChunkKey& key) const {
  auto found = std::lower_bound(
      entries_.begin(), entries_.end(), key,
      [](const PackEntry& entry, const ChunkKey& wanted) { return entry.key() < wanted; });
  return found != entries_.end() && found->key() == key ? &*found : nullptr;
}

Status Pack::ReadStored(const PackEntry& entry, std::span<uint8_t> out) const {
  return ReadExactAt(file_.get(), out.first(entry.stored_size), entry.offset, name_.c_str());
}

Status Pack::Read(const PackEntry& entry, std::span<uint8_t> out) const {
  uint8_t stored[kChunkSize];
  CUBE_TRY(ReadStored(entry, stored));
  return Unpack(entry, {stored, entry.stored_size}, out, name_);
}

Result<PackWriter> PackWriter::Create(const std::string& folder) {
  std::string temporary = folder + "/" + kUnpublishedPrefix + "XXXXXX";
  UniqueFd file(mkostemp(temporary.data(), O_CLOEXEC));
  if (!file.valid()) return ErrnoError("cannot make %s", temporary.c_str());
  fchmod(file.get(), 0644);
  PackWriter writer(folder, temporary, std::move(file));
  Header header = {};
  memcpy(header.magic, kHeaderMagic, sizeof kHeaderMagic);
  header.version = kVersion;
  header.chunk_size = kChunkSize;
  CUBE_TRY(writer.Put(BytesOf(&header, sizeof header)));
  return writer;
}

PackWriter::~PackWriter() {
  if (file_.valid() && !temporary_.empty()) unlink(temporary_.c_str());
}

Status PackWriter::Put(std::span<const uint8_t> bytes) {
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  offset_ += bytes.size();
  return buffer_.size() < kBufferSize ? OkStatus() : Flush();
}

Status PackWriter::Flush() {
  CUBE_TRY(WriteAll(file_.get(), buffer_, "a pack of the store"));
  flushed_ += buffer_.size();
  buffer_.clear();
  return OkStatus();
}

Result<PackEntry> PackWriter::Append(const ChunkKey& key, std::span<const uint8_t> raw) {
  compressed_.resize(static_cast<size_t>(LZ4_compressBound(kChunkSize)));
  int size = LZ4_compress_default(
      reinterpret_cast<const char*>(raw.data()), reinterpret_cast<char*>(compressed_.data()),
      static_cast<int>(raw.size()), static_cast<int>(compressed_.size()));
  PackEntry entry = {};
  entry.hash_high = key.hash_high;
  entry.hash_low = key.hash_low;
  entry.ordinal = key.ordinal;
  entry.raw_size = static_cast<uint32_t>(raw.size());
  bool smaller = size > 0 && static_cast<size_t>(size) < raw.size();
  std::span<const uint8_t> stored =
      smaller ? std::span<const uint8_t>(compressed_).first(static_cast<size_t>(size)) : raw;
  entry.stored_size = static_cast<uint32_t>(stored.size());
  return AppendStored(entry, stored);
}

Result<PackEntry> PackWriter::AppendStored(PackEntry entry, std::span<const uint8_t> stored) {
  entry.offset = offset_;
  CUBE_TRY(Put(stored));
  entries_.push_back(entry);
  return entry;
}

Status PackWriter::Read(const PackEntry& entry, std::span<uint8_t> out) const {
  if (entry.offset >= flushed_) {
    return Unpack(entry, std::span(buffer_).subspan(entry.offset - flushed_, entry.stored_size),
                  out, temporary_);
  }
  uint8_t stored[kChunkSize];
  CUBE_TRY(ReadExactAt(file_.get(), {stored, entry.stored_size}, entry.offset, "a pack"));
  return Unpack(entry, {stored, entry.stored_size}, out, temporary_);
}

Result<std::string> PackWriter::Publish() {
  std::sort(entries_.begin(), entries_.end(),
            [](const PackEntry& a, const PackEntry& b) { return a.key() < b.key(); });
  std::span<const uint8_t> index = BytesOf(entries_.data(), entries_.size() * sizeof(PackEntry));
  Footer footer = {};
  footer.index_offset = offset_;
  footer.entry_count = entries_.size();
  footer.index_xxh3 = XXH3_64bits(index.data(), index.size());
  memcpy(footer.magic, kFooterMagic, sizeof kFooterMagic);
  CUBE_TRY(Put(index));
  CUBE_TRY(Put(BytesOf(&footer, sizeof footer)));
  CUBE_TRY(Flush());
  if (fsync(file_.get()) < 0) return ErrnoError("fsync of a pack of the store");
  CUBE_ASSIGN(std::string id, NewSnapshotId());
  std::string path = folder_ + "/" + id + ".pack";
  if (rename(temporary_.c_str(), path.c_str()) < 0)
    return ErrnoError("publishing %s", path.c_str());
  temporary_.clear();
  CUBE_TRY(SyncFolder(folder_));
  return path;
}

}  // namespace cube::snapshot
