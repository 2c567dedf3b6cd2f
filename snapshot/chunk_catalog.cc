#include "snapshot/chunk_catalog.h"

#include <algorithm>
#include <cstring>

namespace cube::snapshot {

ChunkCatalog::ChunkCatalog(std::vector<Pack> packs, std::string folder)
    : packs_(std::move(packs)), folder_(std::move(folder)) {
  for (uint32_t i = 0; i < packs_.size(); ++i) {
    for (const PackEntry& entry : packs_[i].entries()) Note(i, entry);
    packs_[i].DropEntries();
  }
}

void ChunkCatalog::Note(uint32_t pack, const PackEntry& entry) {
  SameHash& same = chunks_[{entry.hash_high, entry.hash_low, 0}];
  same.next_ordinal = std::max(same.next_ordinal, entry.ordinal + 1);
  if (same.places.size() < kMaxCompared) same.places.push_back({pack, entry});
}

Result<ChunkKey> ChunkCatalog::Put(std::span<const uint8_t> bytes) {
  ChunkKey key = HashChunk(bytes);
  auto known = chunks_.find(key);
  if (known != chunks_.end()) {
    for (const Place& place : known->second.places) {
      if (place.entry.raw_size != bytes.size()) continue;
      uint8_t there[kChunkSize];
      Status read = place.pack == kWriter ? writer_->Read(place.entry, there)
                                          : packs_[place.pack].Read(place.entry, there);
      // One that is damaged is not the same; what is added now does not build on it.
      if (read.ok() && memcmp(there, bytes.data(), bytes.size()) == 0) return place.entry.key();
    }
    key.ordinal = known->second.next_ordinal;
  }
  if (writer_ && writer_->full()) CUBE_TRY(CloseWriter());
  if (!writer_) {
    CUBE_ASSIGN(PackWriter writer, PackWriter::Create(folder_));
    writer_.emplace(std::move(writer));
  }
  CUBE_ASSIGN(PackEntry entry, writer_->Append(key, bytes));
  Note(kWriter, entry);
  ++stored_;
  written_ += entry.stored_size;
  return key;
}

Status ChunkCatalog::CloseWriter() {
  CUBE_ASSIGN(std::string path, writer_->Publish());
  CUBE_ASSIGN(Pack pack, Pack::Open(path));
  pack.DropEntries();
  auto number = static_cast<uint32_t>(packs_.size());
  packs_.push_back(std::move(pack));
  for (auto& [key, same] : chunks_) {
    for (Place& place : same.places) {
      if (place.pack == kWriter) place.pack = number;
    }
  }
  writer_.reset();
  return OkStatus();
}

Status ChunkCatalog::Finish() { return writer_ ? CloseWriter() : OkStatus(); }

}  // namespace cube::snapshot
