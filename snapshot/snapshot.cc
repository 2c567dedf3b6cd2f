#include "snapshot/snapshot.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/byte_io.h"
#include "snapshot/layer_file.h"
#include "snapshot/machine_sections.h"
#include "snapshot/state_file.h"
#include "snapshot/verified_stamp.h"
#include "vmm/memory_map.h"

namespace cube::snapshot {

using ::cube::devices::blk::Disk;
using ::cube::devices::blk::DiskStack;
using ::cube::devices::blk::OverlayFile;

namespace {

Result<std::vector<uint8_t>> ReadSmallFile(const std::string& path, size_t limit) {
  // Not blocked by a FIFO that somebody has put there.
  CUBE_ASSIGN(UniqueFd file, OpenFile(path, O_RDONLY | O_NONBLOCK));
  CUBE_ASSIGN(uint64_t size, RegularFileSize(file.get(), path.c_str()));
  if (size > limit) {
    return Errorf("%s has %llu bytes, at most %zu are valid", path.c_str(),
                  static_cast<unsigned long long>(size), limit);
  }
  std::vector<uint8_t> bytes(size);
  size_t done = 0;
  while (done < bytes.size()) {
    ssize_t n =
        pread(file.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (n < 0) return ErrnoError("reading %s", path.c_str());
    if (n == 0) return Errorf("%s shrank while it was read", path.c_str());
    done += static_cast<size_t>(n);
  }
  return bytes;
}

// Each stretch of anonymous memory within an image is two mappings more, so they are long ones.
constexpr uint64_t kLeastAnonymous = 2 << 20;

// Joins runs with less than `least` between them.
std::vector<PageRun> CloseGaps(const std::vector<PageRun>& runs, uint64_t least) {
  std::vector<PageRun> joined;
  for (const PageRun& run : runs) {
    if (!joined.empty() && run.start - (joined.back().start + joined.back().size) < least) {
      joined.back().size = run.start + run.size - joined.back().start;
    } else {
      joined.push_back(run);
    }
  }
  return joined;
}

Error At(const std::string& file, const Error& error) { return Error(error).Wrap(file); }

std::string ParentPath(const std::string& path, const std::string& parent) {
  return parent.starts_with('/') ? parent : path + "/" + parent;
}

// Image and layers that are not a snapshot's own, as they were when it was taken.
Result<DiskStack> OpenOutside(const DiskHardware& disk) {
  ::cube::devices::blk::DiskFiles files;
  files.read_only = true;
  files.base = disk.files[0].path;
  for (size_t i = 1; i < disk.files.size(); ++i) files.layers.push_back(disk.files[i].path);
  CUBE_ASSIGN(Disk opened, Disk::Open(files));
  const DiskStack& stack = opened.stack();
  CUBE_TRY(disk.files[0].Check(stack.image->get()));
  for (size_t i = 1; i < disk.files.size(); ++i) {
    CUBE_TRY(disk.files[i].Check(stack.layers[i - 1]->fd()));
  }
  return stack;
}

}  // namespace

Result<Snapshot> Snapshot::Open(const std::string& path) {
  std::vector<std::string> children;
  return OpenAt(path, &children, nullptr);
}

Result<Snapshot> Snapshot::OpenLazily(const std::string& path, LazyServer::Failed failed) {
  std::vector<std::string> children;
  return OpenAt(path, &children, &failed);
}

Result<Snapshot> Snapshot::OpenAt(const std::string& path, std::vector<std::string>* children,
                                  const LazyServer::Failed* failed) {
  Snapshot snapshot;
  snapshot.path_ = path;
  std::string manifest_path = path + "/manifest.json";
  CUBE_ASSIGN(std::vector<uint8_t> text, ReadSmallFile(manifest_path, Manifest::kMaxSize));
  auto manifest = Manifest::Parse({reinterpret_cast<const char*>(text.data()), text.size()});
  if (!manifest.ok()) return At(manifest_path, manifest.error());
  snapshot.manifest_ = std::move(*manifest);
  const Manifest& m = snapshot.manifest_;
  if (m.memory_bytes < vmm::kMinMemory || m.memory_bytes > vmm::kMaxMemory ||
      m.memory_bytes % vmm::kPageSize != 0) {
    return Errorf("%s: memory of %llu bytes", manifest_path.c_str(),
                  static_cast<unsigned long long>(m.memory_bytes));
  }
  if (std::find(children->begin(), children->end(), m.id) != children->end()) {
    return Errorf("%s builds on itself, in a circle", path.c_str());
  }
  if (!m.parent.empty()) {
    if (children->size() >= kMaxDepth) {
      return Errorf("%s: more than %zu snapshots build on one another", path.c_str(), kMaxDepth);
    }
    children->push_back(m.id);
    auto parent = OpenAt(ParentPath(path, m.parent_path), children, failed);
    // Of a long chain its ends, not all of it.
    bool is_last = children->front() == m.id;
    if (!parent.ok() && !is_last) return parent.error();
    if (!parent.ok()) {
      const char* whose = children->size() == 1 ? "the parent of " : "an ancestor of ";
      return Error(parent.error()).Wrap(whose + path);
    }
    if (parent->manifest_.id != m.parent) {
      return Errorf("%s builds on snapshot %s, %s is %s", path.c_str(), m.parent.c_str(),
                    parent->path_.c_str(), parent->manifest_.id.c_str());
    }
    if (parent->manifest_.memory_bytes != m.memory_bytes) {
      return Errorf("%s has %llu bytes of memory, its parent %llu", path.c_str(),
                    static_cast<unsigned long long>(m.memory_bytes),
                    static_cast<unsigned long long>(parent->manifest_.memory_bytes));
    }
    snapshot.layers_ = std::move(parent->layers_);
    CUBE_TRY(snapshot.OpenDisks(&*parent));
  } else {
    CUBE_TRY(snapshot.OpenDisks(nullptr));
  }
  std::string state_path = path + "/state";
  CUBE_ASSIGN(std::vector<uint8_t> state, ReadSmallFile(state_path, kMaxStateFile));
  if (state.size() != m.state_bytes ||
      Format("%016llx", static_cast<unsigned long long>(XXH3_64bits(state.data(), state.size()))) !=
          m.state_xxh3) {
    // Which part it is says more than that it is one.
    auto sections = DecodeState(state);
    if (!sections.ok()) return At(state_path, sections.error());
    return Errorf("%s does not match the manifest's length and checksum", state_path.c_str());
  }
  auto sections = DecodeState(state);
  if (!sections.ok()) return At(state_path, sections.error());
  auto machine = DecodeMachine(*sections, m);
  if (!machine.ok()) return At(state_path, machine.error());
  snapshot.state_ = std::move(*machine);
  CUBE_TRY(m.cold ? snapshot.OpenCold(path, failed) : snapshot.OpenMemory(path + "/memory"));
  return snapshot;
}

Status Snapshot::OpenMemory(const std::string& path) {
  CUBE_ASSIGN(UniqueFd file, OpenFile(path, O_RDONLY | O_NONBLOCK));
  CUBE_ASSIGN(uint64_t file_bytes, RegularFileSize(file.get(), path.c_str()));
  // A file system without locks is no reason to refuse.
  bool locked_away = flock(file.get(), LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
  struct stat info;
  if (fstat(file.get(), &info) < 0) return ErrnoError("%s", path.c_str());
  if (locked_away || info.st_nlink == 0) return Errorf("%s is being removed", path.c_str());
  uint64_t image_bytes = vmm::GuestMemory::ImageSize(manifest_.memory_bytes);
  bool is_base = manifest_.parent.empty();
  uint64_t wanted = is_base ? image_bytes : manifest_.memory_file_bytes;
  if (file_bytes != wanted) {
    return Errorf("%s has %llu bytes, %llu are wanted", path.c_str(),
                  static_cast<unsigned long long>(file_bytes),
                  static_cast<unsigned long long>(wanted));
  }
  Layer layer;
  if (!is_base) {
    auto runs = ReadDiffIndex(file.get(), image_bytes);
    if (!runs.ok()) return At(path, runs.error());
    layer.runs = std::move(*runs);
    for (const PlacedRun& run : layer.runs) {
      // A run across the end of a region could not be mapped.
      if (!vmm::GuestMemory::WithinRegion(manifest_.memory_bytes, run.start, run.size)) {
        return Errorf("%s: a run of %llu bytes at %llu crosses regions", path.c_str(),
                      static_cast<unsigned long long>(run.size),
                      static_cast<unsigned long long>(run.start));
      }
    }
  }
  if (!IsStamped(path, info)) {
    CUBE_ASSIGN(std::string hash,
                is_base ? HashBaseMemory(file.get()) : HashDiffMemory(file.get()));
    if (hash != manifest_.memory_xxh3) {
      return Errorf("%s does not match its checksum: %s, should be %s", path.c_str(), hash.c_str(),
                    manifest_.memory_xxh3.c_str());
    }
    // Without a stamp the next one reads it again; a folder that cannot be written to has none.
    (void)Stamp(path, info);
  }
  if (is_base) {
    CUBE_ASSIGN(std::vector<PageRun> data, FileDataRuns(file.get()));
    layer.data = CloseGaps(data, kLeastAnonymous);
  }
  layer.memory = std::make_shared<UniqueFd>(std::move(file));
  layers_.push_back(std::move(layer));
  return OkStatus();
}

std::vector<int> Snapshot::descriptors() const {
  std::vector<int> all;
  for (const Layer& layer : layers_) all.push_back(layer.fd());
  for (const DiskStack& disk : disks_) {
    std::vector<int> files = disk.descriptors();
    all.insert(all.end(), files.begin(), files.end());
  }
  return all;
}

Status Snapshot::OpenDisks(const Snapshot* parent) {
  const std::vector<DiskHardware>& disks = manifest_.hardware.disks;
  if (parent != nullptr && parent->disks_.size() != disks.size()) {
    return Errorf("%s has %zu disks, its parent %zu", path_.c_str(), disks.size(),
                  parent->disks_.size());
  }
  for (size_t i = 0; i < disks.size(); ++i) {
    const DiskHardware& disk = disks[i];
    if (parent == nullptr) {
      auto outside = OpenOutside(disk);
      if (!outside.ok()) return Error(outside.error()).Wrap(path_ + ": disk " + disk.name);
      CUBE_TRY(OpenDisk(disk, std::move(*outside)));
      continue;
    }
    const DiskHardware& below = parent->manifest_.hardware.disks[i];
    if (below.files != disk.files || below.read_only != disk.read_only) {
      return Errorf("%s: disk %s is not made of the same files as that of its parent",
                    path_.c_str(), disk.name.c_str());
    }
    CUBE_TRY(OpenDisk(disk, parent->disks_[i]));
  }
  return OkStatus();
}

Status Snapshot::OpenDisk(const DiskHardware& disk, DiskStack stack) {
  if (disk.layer_blocks != 0) {
    const std::string path = path_ + "/" + disk.layer_name();
    CUBE_ASSIGN(OverlayFile layer,
                OverlayFile::Open(path, stack.size, OverlayFile::Access::kReadOnly));
    struct stat info;
    if (fstat(layer.fd(), &info) < 0) return ErrnoError("%s", path.c_str());
    if (layer.present().Count() != disk.layer_blocks) {
      return Errorf("%s has %llu blocks, the manifest says %llu", path.c_str(),
                    static_cast<unsigned long long>(layer.present().Count()),
                    static_cast<unsigned long long>(disk.layer_blocks));
    }
    if (!IsStamped(path, info)) {
      CUBE_ASSIGN(std::string hash, HashLayer(layer));
      if (hash != disk.layer_xxh3) {
        return Errorf("%s does not match its checksum: %s, should be %s", path.c_str(),
                      hash.c_str(), disk.layer_xxh3.c_str());
      }
      (void)Stamp(path, info);
    }
    stack.layers.push_back(std::make_shared<const OverlayFile>(std::move(layer)));
  }
  disks_.push_back(std::move(stack));
  return OkStatus();
}

Status Snapshot::OpenCold(const std::string& path, const LazyServer::Failed* failed) {
  std::string file = path + "/memory.cold";
  CUBE_ASSIGN(std::vector<uint8_t> bytes, ReadSmallFile(file, ColdIndex::kMaxSize));
  XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  auto index = ColdIndex::Decode(bytes);
  if (!index.ok()) return At(file, index.error());
  if (bytes.size() != manifest_.memory_file_bytes ||
      Format("%016llx%016llx", static_cast<unsigned long long>(hash.high64),
             static_cast<unsigned long long>(hash.low64)) != manifest_.memory_xxh3) {
    return Errorf("%s does not match the manifest's length and checksum", file.c_str());
  }
  if (index->image_bytes != image_bytes()) {
    return Errorf("%s is of an image of %llu bytes, %llu are wanted", file.c_str(),
                  static_cast<unsigned long long>(index->image_bytes),
                  static_cast<unsigned long long>(image_bytes()));
  }
  Layer layer;
  auto image = ColdImage::Open(path, *index);
  if (!image.ok()) return At(path, image.error());
  layer.cold = std::move(*image);
  layer.data = layer.cold->data_runs();
  if (failed != nullptr) {
    CUBE_ASSIGN(layer.lazy, LazyServer::Start(layer.cold, *failed));
  } else {
    Status loaded = layer.cold->LoadAll();
    if (!loaded.ok()) return At(path, loaded.error());
  }
  layers_.push_back(std::move(layer));
  return OkStatus();
}

Status Snapshot::LoadAll() const {
  return layers_[0].lazy != nullptr ? layers_[0].lazy->LoadAll() : OkStatus();
}

template <typename Use>
Status Snapshot::ForLayers(uint64_t start, uint64_t size, Use use) const {
  for (size_t i = 1; i < layers_.size(); ++i) {
    const std::vector<PlacedRun>& placed = layers_[i].runs;
    auto at = std::upper_bound(
        placed.begin(), placed.end(), start,
        [](uint64_t wanted, const PlacedRun& run) { return wanted < run.start + run.size; });
    for (; at != placed.end() && at->start < start + size; ++at) {
      uint64_t first = std::max(at->start, start);
      uint64_t end = std::min(at->start + at->size, start + size);
      CUBE_TRY(use(layers_[i], first, end - first, at->file_offset + (first - at->start)));
    }
  }
  return OkStatus();
}

// Long stretches without data are anonymous: what a guest writes there first is a page of zeros,
// not one of the file's that has to be made, kept in the page cache and copied. In a page store's
// image they need not be served either.
Status Snapshot::MapBase(const vmm::GuestMemory& memory, const PageRun& run) const {
  const Layer& base = layers_[0];
  CUBE_TRY(memory.MapOver(run.start, run.size, base.fd(), run.start));
  uint64_t at = run.start;
  uint64_t end = run.start + run.size;
  for (const PageRun& data : base.data) {
    if (data.start + data.size <= at) continue;
    if (data.start >= end) break;
    if (data.start > at) CUBE_TRY(memory.MapOver(at, data.start - at, -1, 0));
    uint64_t first = std::max(data.start, at);
    at = std::min(data.start + data.size, end);
    if (base.lazy == nullptr) continue;
    auto slice = memory.ImageSlice(first, at - first);
    if (!slice) return Errorf("a run of a memory image crosses regions");
    CUBE_TRY(base.lazy->Register(*slice, first));
  }
  if (at < end) CUBE_TRY(memory.MapOver(at, end - at, -1, 0));
  return OkStatus();
}

Result<vmm::GuestMemory> Snapshot::MapMemory() const {
  CUBE_ASSIGN(vmm::GuestMemory memory,
              vmm::GuestMemory::MapImage(manifest_.memory_bytes, layers_[0].fd()));
  uint64_t offset = 0;
  for (const vmm::MemoryRegion& region : memory.regions()) {
    CUBE_TRY(MapBase(memory, {offset, region.host.size()}));
    offset += region.host.size();
  }
  for (size_t i = 1; i < layers_.size(); ++i) {
    for (const PlacedRun& run : layers_[i].runs) {
      CUBE_TRY(memory.MapOver(run.start, run.size, layers_[i].fd(), run.file_offset));
      auto slice = memory.ImageSlice(run.start, run.size);
      if (slice && run.size >= kLongRun) (void)madvise(slice->data(), run.size, MADV_RANDOM);
    }
  }
  return memory;
}

void Snapshot::ReadAhead(const vmm::GuestMemory& memory) {
  for (const vmm::MemoryRegion& region : memory.regions()) {
    (void)madvise(region.host.data(), region.host.size(), MADV_NORMAL);
  }
}

Status Snapshot::MapRuns(const vmm::GuestMemory& memory, const std::vector<PageRun>& runs) const {
  for (const PageRun& run : runs) {
    CUBE_TRY(MapBase(memory, run));
    CUBE_TRY(ForLayers(run.start, run.size,
                       [&](const Layer& layer, uint64_t start, uint64_t size, uint64_t at) {
                         return memory.MapOver(start, size, layer.fd(), at);
                       }));
  }
  return OkStatus();
}

Status Snapshot::MapAll(const vmm::GuestMemory& memory) const {
  std::vector<PageRun> all;
  uint64_t offset = 0;
  for (const vmm::MemoryRegion& region : memory.regions()) {
    all.push_back({offset, region.host.size()});
    offset += region.host.size();
  }
  return MapRuns(memory, all);
}

Result<std::vector<PageRun>> Snapshot::DataRuns() const {
  CUBE_ASSIGN(std::vector<PageRun> runs, FileDataRuns(layers_[0].fd()));
  for (const Layer& layer : layers_) {
    std::vector<PageRun> own;
    for (const PlacedRun& run : layer.runs) own.push_back({run.start, run.size});
    runs = MergeRuns(runs, own);
  }
  return runs;
}

std::vector<PageRun> Snapshot::AnonymousRuns() const {
  std::vector<PageRun> mapped = layers_[0].data;
  for (const Layer& layer : layers_) {
    std::vector<PageRun> own;
    for (const PlacedRun& run : layer.runs) own.push_back({run.start, run.size});
    mapped = MergeRuns(mapped, own);
  }
  std::vector<PageRun> between;
  uint64_t at = 0;
  mapped.push_back({image_bytes(), 0});
  for (const PageRun& run : mapped) {
    if (run.start > at) between.push_back({at, run.start - at});
    at = run.start + run.size;
  }
  return between;
}

Status Snapshot::Read(uint64_t offset, std::span<uint8_t> out) const {
  CUBE_TRY(ReadExactAt(layers_[0].fd(), out, offset, "a memory image"));
  return ForLayers(
      offset, out.size(), [&](const Layer& layer, uint64_t start, uint64_t size, uint64_t at) {
        return ReadExactAt(layer.fd(), out.subspan(start - offset, size), at, "a memory diff");
      });
}

}  // namespace cube::snapshot
