#include "snapshot/page_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/byte_io.h"
#include "snapshot/chunk_catalog.h"
#include "snapshot/publish.h"
#include "snapshot/snapshot_writer.h"

namespace cube::snapshot {
namespace {

// A pack with less than this in it is joined with others.
constexpr uint64_t kSmallPack = 4 << 20;

Result<ColdIndex> ReadIndex(const std::string& folder) {
  std::string path = folder + "/memory.cold";
  CUBE_ASSIGN(UniqueFd file, OpenFile(path, O_RDONLY | O_NONBLOCK));
  CUBE_ASSIGN(uint64_t size, RegularFileSize(file.get(), path.c_str()));
  if (size > ColdIndex::kMaxSize) {
    return Errorf("%s has %llu bytes, at most %zu are valid", path.c_str(),
                  static_cast<unsigned long long>(size), ColdIndex::kMaxSize);
  }
  std::vector<uint8_t> bytes(size);
  CUBE_TRY(ReadExactAt(file.get(), bytes, 0, path.c_str()));
  auto index = ColdIndex::Decode(bytes);
  if (!index.ok()) return Error(index.error()).Wrap(path);
  return std::move(*index);
}

Result<std::set<ChunkKey>> NamedChunks(const StoreFolder& folder) {
  CUBE_ASSIGN(std::vector<std::string> ids, folder.Snapshots());
  std::set<ChunkKey> named;
  for (const std::string& id : ids) {
    CUBE_ASSIGN(ColdIndex index, ReadIndex(folder.snapshots() + "/" + id));
    for (const ColdIndex::Entry& entry : index.entries) named.insert(entry.key());
  }
  return named;
}

}  // namespace

Result<PageStore> PageStore::Open(const std::string& root) {
  StoreFolder folder(root);
  CUBE_TRY(folder.Create());
  return PageStore(std::move(folder));
}

// Only with the lock: nobody else is writing, so whatever is not published never will be.
Status PageStore::RemoveLeftovers() const {
  RemoveUnpublished(folder_.snapshots());
  std::error_code failed;
  for (std::filesystem::directory_iterator at(folder_.packs(), failed), end; !failed && at != end;
       at.increment(failed)) {
    if (at->path().filename().string().starts_with(kUnpublishedPrefix)) {
      unlink(at->path().c_str());
    }
  }
  if (failed) return Errorf("%s: %s", folder_.packs().c_str(), failed.message().c_str());
  return OkStatus();
}

Result<PageStore::Added> PageStore::Add(const Snapshot& snapshot) {
  Added added;
  added.path = SnapshotPath(snapshot.manifest().id);
  CUBE_ASSIGN(UniqueFd lock, folder_.Lock(true));
  CUBE_TRY(RemoveLeftovers());
  struct stat info;
  if (stat(added.path.c_str(), &info) == 0) {
    added.is_new = false;
    return added;
  }
  CUBE_ASSIGN(std::vector<Pack> packs, folder_.OpenPacks(nullptr));
  ChunkCatalog catalog(std::move(packs), folder_.packs());
  CUBE_ASSIGN(std::vector<PageRun> runs, snapshot.DataRuns());
  ColdIndex index;
  index.image_bytes = snapshot.image_bytes();
  uint8_t bytes[kChunkSize];
  uint64_t next = 0;  // the first chunk not yet seen
  for (const PageRun& run : runs) {
    uint64_t last = (run.start + run.size - 1) / kChunkSize;
    for (uint64_t number = std::max(next, run.start / kChunkSize); number <= last; ++number) {
      uint64_t start = number * kChunkSize;
      std::span<uint8_t> chunk(bytes, std::min<uint64_t>(kChunkSize, index.image_bytes - start));
      CUBE_TRY(snapshot.Read(start, chunk));
      if (IsZero(chunk)) continue;
      CUBE_ASSIGN(ChunkKey key, catalog.Put(chunk));
      index.entries.push_back(
          {static_cast<uint32_t>(number), key.ordinal, key.hash_high, key.hash_low});
    }
    next = last + 1;
  }
  // The chunks first: a snapshot that can be seen is whole.
  CUBE_TRY(catalog.Finish());
  added.chunks = index.entries.size();
  added.stored = catalog.stored();
  added.written = catalog.written();
  Manifest about = snapshot.manifest();
  about.parent.clear();
  about.parent_path.clear();
  CUBE_ASSIGN(SnapshotWriter writer, SnapshotWriter::Create(added.path, std::move(about)));
  CUBE_TRY(writer.WriteCold(snapshot.state(), index));
  CUBE_TRY(writer.WriteDisks(snapshot.disks(), nullptr));
  CUBE_ASSIGN(std::string id, writer.Publish(true));
  return added;
}

Status PageStore::Remove(const std::string& id) {
  CUBE_ASSIGN(UniqueFd lock, folder_.Lock(true));
  CUBE_TRY(RemoveLeftovers());
  CUBE_ASSIGN(std::vector<std::string> ids, folder_.Snapshots());
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) {
    return Errorf("no snapshot %s in %s", id.c_str(), folder_.root().c_str());
  }
  // Its name goes in one step, its files after.
  std::string gone = folder_.snapshots() + "/" + kUnpublishedPrefix + id;
  if (rename(SnapshotPath(id).c_str(), gone.c_str()) < 0) {
    return ErrnoError("removing %s", SnapshotPath(id).c_str());
  }
  CUBE_TRY(SyncFolder(folder_.snapshots()));
  return RemoveLeftovers();
}

Result<PageStore::Stats> PageStore::Count() const {
  CUBE_ASSIGN(UniqueFd lock, folder_.Lock(false));
  Stats stats;
  CUBE_ASSIGN(std::vector<std::string> ids, folder_.Snapshots());
  stats.snapshots = ids.size();
  std::set<ChunkKey> named;
  for (const std::string& id : ids) {
    CUBE_ASSIGN(ColdIndex index, ReadIndex(SnapshotPath(id)));
    for (const ColdIndex::Entry& entry : index.entries) {
      named.insert(entry.key());
      stats.image_bytes +=
          std::min<uint64_t>(kChunkSize, index.image_bytes - uint64_t{entry.number} * kChunkSize);
    }
  }
  CUBE_ASSIGN(std::vector<Pack> packs, folder_.OpenPacks(nullptr));
  stats.packs = packs.size();
  for (const Pack& pack : packs) {
    stats.chunks += pack.entries().size();
    stats.file_bytes += pack.file_bytes();
    for (const PackEntry& entry : pack.entries()) {
      stats.raw_bytes += entry.raw_size;
      if (named.contains(entry.key())) continue;
      ++stats.unused_chunks;
      stats.unused_bytes += entry.stored_size;
    }
  }
  return stats;
}

Result<PageStore::Collected> PageStore::Gc() {
  CUBE_ASSIGN(UniqueFd lock, folder_.Lock(true));
  CUBE_TRY(RemoveLeftovers());
  CUBE_ASSIGN(std::set<ChunkKey> named, NamedChunks(folder_));
  CUBE_ASSIGN(std::vector<Pack> all, folder_.OpenPacks(nullptr));
  Collected collected;
  auto remove = [&](const Pack& pack) -> Status {
    if (unlink(pack.name().c_str()) < 0) return ErrnoError("deleting %s", pack.name().c_str());
    ++collected.packs_deleted;
    collected.bytes_freed += pack.file_bytes();
    return OkStatus();
  };
  std::vector<Pack> packs;
  std::vector<bool> rewrite;
  size_t small = 0;
  // A crash between a new pack and the end of the old ones leaves chunks twice; one of them goes.
  std::set<ChunkKey> kept;
  for (Pack& opened : all) {
    Pack pack = std::move(opened);
    size_t live = 0;
    for (const PackEntry& entry : pack.entries()) {
      if (named.contains(entry.key()) && kept.insert(entry.key()).second) ++live;
    }
    if (live == 0) {
      // At once, and closed: on a disk that is full, what is written next finds room.
      collected.chunks_deleted += pack.entries().size();
      CUBE_TRY(remove(pack));
      continue;
    }
    small += pack.file_bytes() < kSmallPack ? 1 : 0;
    rewrite.push_back(live < pack.entries().size());
    packs.push_back(std::move(pack));
  }
  for (size_t i = 0; i < packs.size(); ++i) {
    if (packs[i].file_bytes() < kSmallPack && small > 1) rewrite[i] = true;
  }
  std::optional<PackWriter> writer;
  auto publish = [&]() -> Status {
    if (!writer) return OkStatus();
    CUBE_ASSIGN(std::string path, writer->Publish());
    collected.bytes_freed -= writer->file_bytes();
    ++collected.packs_written;
    writer.reset();
    return OkStatus();
  };
  std::set<ChunkKey> moved;
  for (size_t i = 0; i < packs.size(); ++i) {
    if (!rewrite[i]) continue;
    for (const PackEntry& entry : packs[i].entries()) {
      bool needed = named.contains(entry.key());
      for (size_t j = 0; needed && j < packs.size(); ++j) {
        if (!rewrite[j] && packs[j].Find(entry.key()) != nullptr) needed = false;
      }
      if (!needed || !moved.insert(entry.key()).second) {
        ++collected.chunks_deleted;
        continue;
      }
      // As it is, damaged or not: that is for Verify() to find.
      uint8_t stored[kChunkSize];
      CUBE_TRY(packs[i].ReadStored(entry, stored));
      if (writer && writer->full()) CUBE_TRY(publish());
      if (!writer) {
        CUBE_ASSIGN(PackWriter created, PackWriter::Create(folder_.packs()));
        writer.emplace(std::move(created));
      }
      CUBE_TRY(writer->AppendStored(entry, {stored, entry.stored_size}));
    }
  }
  CUBE_TRY(publish());
  for (size_t i = 0; i < packs.size(); ++i) {
    if (rewrite[i]) CUBE_TRY(remove(packs[i]));
  }
  CUBE_TRY(SyncFolder(folder_.packs()));
  return collected;
}

Result<std::vector<std::string>> PageStore::Verify() const {
  CUBE_ASSIGN(UniqueFd lock, folder_.Lock(false));
  std::vector<std::string> problems;
  std::vector<Error> unreadable;
  CUBE_ASSIGN(std::vector<Pack> packs, folder_.OpenPacks(&unreadable));
  for (const Error& error : unreadable) problems.push_back(error.message());
  std::set<ChunkKey> good;
  std::set<ChunkKey> damaged;
  for (const Pack& pack : packs) {
    for (const PackEntry& entry : pack.entries()) {
      uint8_t bytes[kChunkSize];
      Status read = pack.Read(entry, bytes);
      if (read.ok()) {
        good.insert(entry.key());
      } else {
        damaged.insert(entry.key());
        problems.push_back(read.error().message());
      }
    }
  }
  CUBE_ASSIGN(std::vector<std::string> ids, folder_.Snapshots());
  for (const std::string& id : ids) {
    auto index = ReadIndex(SnapshotPath(id));
    if (!index.ok()) {
      problems.push_back(index.error().message());
      continue;
    }
    size_t lost = 0;
    std::string first;
    for (const ColdIndex::Entry& entry : index->entries) {
      if (good.contains(entry.key())) continue;
      if (lost++ == 0) {
        first =
            entry.key().Name() + (damaged.contains(entry.key()) ? " is damaged" : " is missing");
      }
    }
    if (lost > 0) {
      problems.push_back(Format("snapshot %s lacks %zu of its %zu chunks: %s", id.c_str(), lost,
                                index->entries.size(), first.c_str()));
      continue;
    }
    auto opened = Snapshot::Open(SnapshotPath(id));
    if (!opened.ok()) problems.push_back(opened.error().message());
  }
  return problems;
}

}  // namespace cube::snapshot
