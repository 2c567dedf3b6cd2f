#include "snapshot/cold_image.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "snapshot/store_folder.h"

namespace cube::snapshot {

Result<std::shared_ptr<ColdImage>> ColdImage::Open(const std::string& folder,
                                                   const ColdIndex& index) {
  std::shared_ptr<ColdImage> image(new ColdImage);
  image->image_bytes_ = index.image_bytes;
  image->loaded_.resize((index.image_bytes + kChunkSize - 1) / kChunkSize);
  CUBE_ASSIGN(StoreFolder store, StoreFolder::Of(folder));
  // A pack that is replaced meanwhile would be neither here nor there.
  CUBE_ASSIGN(UniqueFd lock, store.Lock(false));
  std::vector<Error> unreadable;
  CUBE_ASSIGN(std::vector<Pack> packs, store.OpenPacks(&unreadable));
  constexpr uint32_t kNowhere = UINT32_MAX;
  for (const ColdIndex::Entry& entry : index.entries) {
    image->chunks_.push_back({entry.number, kNowhere, {}});
  }
  size_t missing = image->chunks_.size();
  for (Pack& pack : packs) {
    if (missing == 0) break;
    bool used = false;
    for (size_t i = 0; i < image->chunks_.size(); ++i) {
      Chunk& chunk = image->chunks_[i];
      if (chunk.pack != kNowhere) continue;
      const PackEntry* found = pack.Find(index.entries[i].key());
      if (found == nullptr) continue;
      uint64_t left = index.image_bytes - uint64_t{chunk.number} * kChunkSize;
      if (found->raw_size != std::min<uint64_t>(kChunkSize, left)) {
        return Errorf("%s: chunk %s has %u bytes, at its place are %llu", pack.name().c_str(),
                      found->key().Name().c_str(), found->raw_size,
                      static_cast<unsigned long long>(std::min<uint64_t>(kChunkSize, left)));
      }
      chunk.entry = *found;
      chunk.pack = static_cast<uint32_t>(image->packs_.size());
      used = true;
      --missing;
    }
    if (!used) continue;
    pack.DropEntries();
    image->packs_.push_back(std::move(pack));
  }
  for (size_t i = 0; missing > 0 && i < image->chunks_.size(); ++i) {
    if (image->chunks_[i].pack != kNowhere) continue;
    return Errorf("chunk %s is not in the store %s%s%s", index.entries[i].key().Name().c_str(),
                  store.root().c_str(), unreadable.empty() ? "" : ": ",
                  unreadable.empty() ? "" : unreadable[0].message().c_str());
  }
  std::vector<PageRun> runs;
  for (const Chunk& chunk : image->chunks_) {
    uint64_t start = uint64_t{chunk.number} * kChunkSize;
    if (!runs.empty() && runs.back().start + runs.back().size == start) {
      runs.back().size += chunk.entry.raw_size;
    } else {
      runs.push_back({start, chunk.entry.raw_size});
    }
  }
  image->data_runs_ = LimitRuns(std::move(runs), kMaxRuns);
  image->file_.Reset(memfd_create("cube-memory", MFD_CLOEXEC));
  if (!image->file_.valid()) return ErrnoError("memfd_create");
  if (ftruncate(image->file_.get(), static_cast<off_t>(index.image_bytes)) < 0) {
    return ErrnoError("sizing a memory image to %llu bytes",
                      static_cast<unsigned long long>(index.image_bytes));
  }
  return image;
}

Status ColdImage::Load(uint64_t offset) {
  std::lock_guard lock(mutex_);
  return LoadLocked(offset / kChunkSize);
}

Status ColdImage::LoadAll() {
  for (const Chunk& chunk : chunks_) {
    // Not for all of them: faults are served meanwhile.
    std::lock_guard lock(mutex_);
    CUBE_TRY(LoadLocked(chunk.number));
  }
  std::lock_guard lock(mutex_);
  chunks_.clear();
  packs_.clear();
  loaded_.clear();
  return OkStatus();
}

Status ColdImage::LoadLocked(uint64_t number) {
  if (number >= loaded_.size() || loaded_[number]) return OkStatus();
  uint64_t start = number * kChunkSize;
  uint8_t bytes[kChunkSize];
  std::span<uint8_t> content(bytes, std::min<uint64_t>(kChunkSize, image_bytes_ - start));
  auto found =
      std::lower_bound(chunks_.begin(), chunks_.end(), number,
                       [](const Chunk& chunk, uint64_t wanted) { return chunk.number < wanted; });
  if (found != chunks_.end() && found->number == number) {
    CUBE_TRY(packs_[found->pack].Read(found->entry, bytes));
  } else {
    std::fill(content.begin(), content.end(), uint8_t{0});
  }
  while (!content.empty()) {
    ssize_t n = pwrite(file_.get(), content.data(), content.size(), static_cast<off_t>(start));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("loading memory at %llu", static_cast<unsigned long long>(start));
    content = content.subspan(static_cast<size_t>(n));
    start += static_cast<uint64_t>(n);
  }
  loaded_[number] = true;
  return OkStatus();
}

}  // namespace cube::snapshot
