#include "snapshot/snapshot_writer.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "base/byte_io.h"
#include "base/monotonic.h"
#include "snapshot/layer_file.h"
#include "snapshot/machine_sections.h"
#include "snapshot/publish.h"
#include "snapshot/state_file.h"
#include "snapshot/verified_stamp.h"

namespace cube::snapshot {
namespace {

std::string Now() {
  time_t now = time(nullptr);
  tm parts;
  gmtime_r(&now, &parts);
  char text[32];
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// Makes a folder for what is not published yet, and locks it for as long as the descriptor is open:
// whoever clears up tells by it that its writer lives.
Result<UniqueFd> MakeUnpublished(const std::string& parent, std::string* path) {
  constexpr int kAttempts = 100;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    *path = parent + "/" + kUnpublishedPrefix + "XXXXXX";
    if (mkdtemp(path->data()) == nullptr) return ErrnoError("cannot make %s", path->c_str());
    // Until it is locked, it looks like one whose writer died, and may be cleared away.
    UniqueFd folder(open(path->c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    bool locked = folder.valid() && flock(folder.get(), LOCK_EX | LOCK_NB) == 0;
    if (!locked && errno != ENOENT && errno != EWOULDBLOCK) {
      Error error = ErrnoError("cannot lock %s", path->c_str());
      rmdir(path->c_str());
      return error;
    }
    struct stat held, named;
    if (locked && fstat(folder.get(), &held) == 0 && stat(path->c_str(), &named) == 0 &&
        held.st_ino == named.st_ino && held.st_dev == named.st_dev) {
      return folder;
    }
  }
  return Errorf("%s: each of %d folders made there was removed at once", parent.c_str(), kAttempts);
}

}  // namespace

Result<SnapshotWriter> SnapshotWriter::Create(const std::string& path, Manifest about) {
  std::string clean = path;
  while (clean.size() > 1 && clean.ends_with('/')) clean.pop_back();
  struct stat info;
  if (lstat(clean.c_str(), &info) == 0) return Errorf("%s exists already", clean.c_str());
  RemoveUnpublished(FolderOf(clean));
  std::string temporary;
  CUBE_ASSIGN(UniqueFd folder, MakeUnpublished(FolderOf(clean), &temporary));
  chmod(temporary.c_str(), 0755);
  if (about.id.empty()) {
    CUBE_ASSIGN(about.id, NewSnapshotId());
    about.created = Now();
  }
  return SnapshotWriter(clean, temporary, std::move(folder), std::move(about));
}

SnapshotWriter::~SnapshotWriter() {
  // Moved from, or published.
  if (!folder_.valid() || temporary_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(temporary_, ignored);
}

Result<UniqueFd> SnapshotWriter::CreateFile(const char* name) {
  return OpenFile(temporary_ + "/" + name, O_RDWR | O_CREAT | O_EXCL, 0644);
}

Status SnapshotWriter::WriteState(const vmm::MachineState& state) {
  std::vector<uint8_t> bytes = EncodeState(EncodeMachine(state));
  manifest_.state_bytes = bytes.size();
  manifest_.state_xxh3 =
      Format("%016llx", static_cast<unsigned long long>(XXH3_64bits(bytes.data(), bytes.size())));
  CUBE_ASSIGN(UniqueFd file, CreateFile("state"));
  CUBE_TRY(WriteAll(file.get(), bytes, (path_ + "/state").c_str()));
  files_.push_back(std::move(file));
  return OkStatus();
}

Status SnapshotWriter::WriteBase(const vmm::MachineState& state, const vmm::GuestMemory& memory,
                                 const std::vector<PageRun>& runs) {
  std::vector<std::span<const uint8_t>> image;
  for (const vmm::MemoryRegion& region : memory.regions()) image.push_back(region.host);
  return WriteBaseBy(state, [&](int fd) { return WriteBaseMemory(fd, image, runs); });
}

Status SnapshotWriter::WriteFlat(const Snapshot& snapshot) {
  CUBE_ASSIGN(std::vector<PageRun> runs, snapshot.DataRuns());
  auto read = [&](uint64_t offset, std::span<uint8_t> out) { return snapshot.Read(offset, out); };
  return WriteBaseBy(snapshot.state(), [&](int fd) {
    return WriteBaseMemory(fd, snapshot.image_bytes(), read, runs);
  });
}

Status SnapshotWriter::WriteBaseBy(const vmm::MachineState& state,
                                   const std::function<Result<MemoryFileInfo>(int fd)>& write) {
  CUBE_TRY(WriteState(state));
  CUBE_ASSIGN(UniqueFd file, CreateFile("memory"));
  auto info = write(file.get());
  if (!info.ok()) return Error(info.error()).Wrap(path_);
  manifest_.memory_file_bytes = info->file_bytes;
  manifest_.memory_xxh3 = info->xxh3;
  files_.push_back(std::move(file));
  return OkStatus();
}

Status SnapshotWriter::WriteCold(const vmm::MachineState& state, const ColdIndex& index) {
  CUBE_TRY(WriteState(state));
  std::vector<uint8_t> bytes = index.Encode();
  CUBE_ASSIGN(UniqueFd file, CreateFile("memory.cold"));
  CUBE_TRY(WriteAll(file.get(), bytes, (path_ + "/memory.cold").c_str()));
  XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  manifest_.cold = true;
  manifest_.memory_file_bytes = bytes.size();
  manifest_.memory_xxh3 = Format("%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                                 static_cast<unsigned long long>(hash.low64));
  files_.push_back(std::move(file));
  return OkStatus();
}

Status SnapshotWriter::WriteDiff(const vmm::MachineState& state, const vmm::GuestMemory& memory,
                                 const std::vector<PageRun>& runs, const Snapshot& parent) {
  CUBE_TRY(WriteState(state));
  std::vector<std::span<const uint8_t>> pages;
  for (const PageRun& run : runs) {
    auto slice = memory.ImageSlice(run.start, run.size);
    if (!slice) {
      return Errorf("a run of %llu bytes at %llu is not memory",
                    static_cast<unsigned long long>(run.size),
                    static_cast<unsigned long long>(run.start));
    }
    pages.push_back(*slice);
  }
  CUBE_ASSIGN(UniqueFd file, CreateFile("memory"));
  auto info = WriteDiffMemory(file.get(), runs, pages);
  if (!info.ok()) return Error(info.error()).Wrap(path_);
  manifest_.memory_file_bytes = info->file_bytes;
  manifest_.memory_xxh3 = info->xxh3;
  manifest_.parent = parent.manifest().id;
  std::error_code failed;
  std::filesystem::path absolute = std::filesystem::absolute(parent.path(), failed);
  manifest_.parent_path = absolute.lexically_normal().string();
  files_.push_back(std::move(file));
  return OkStatus();
}

Status SnapshotWriter::WriteDisks(const std::vector<::cube::devices::blk::DiskStack>& disks,
                                  const Snapshot* parent) {
  std::vector<DiskHardware>& known = manifest_.hardware.disks;
  if (disks.size() != known.size() ||
      (parent != nullptr && parent->disks().size() != disks.size())) {
    return Errorf("%zu disks, the machine has %zu", disks.size(), known.size());
  }
  for (size_t i = 0; i < disks.size(); ++i) {
    const auto& layers = disks[i].layers;
    size_t below = parent != nullptr ? parent->disks()[i].layers.size() : known[i].files.size() - 1;
    if (below > layers.size()) {
      return Errorf("disk %s has %zu layers, %zu lie below", known[i].name.c_str(), layers.size(),
                    below);
    }
    auto layer =
        WriteLayer(temporary_ + "/" + known[i].layer_name(), std::span(layers).subspan(below));
    if (!layer.ok()) return Error(layer.error()).Wrap(path_ + ": disk " + known[i].name);
    known[i].layer_blocks = layer->blocks;
    known[i].layer_xxh3 = layer->xxh3;
    if (layer->file.valid()) files_.push_back(std::move(layer->file));
  }
  return OkStatus();
}

Result<std::string> SnapshotWriter::Publish(bool durable) {
  std::string text = manifest_.ToJson();
  CUBE_ASSIGN(UniqueFd file, CreateFile("manifest.json"));
  CUBE_TRY(WriteAll(file.get(), {reinterpret_cast<const uint8_t*>(text.data()), text.size()},
                    (path_ + "/manifest.json").c_str()));
  files_.push_back(std::move(file));
  std::vector<std::string> hashed = {"memory"};
  for (const DiskHardware& disk : manifest_.hardware.disks) {
    if (disk.layer_blocks != 0) hashed.push_back(disk.layer_name());
  }
  for (const std::string& name : hashed) {
    struct stat info;
    std::string path = temporary_ + "/" + name;
    if (stat(path.c_str(), &info) == 0) CUBE_TRY(Stamp(path, info));
  }
  if (durable) CUBE_TRY(Sync());
  // Fails if somebody else was first, for then the folder is there and not empty.
  if (rename(temporary_.c_str(), path_.c_str()) < 0) {
    if (errno == ENOTEMPTY || errno == EEXIST) return Errorf("%s exists already", path_.c_str());
    return ErrnoError("publishing %s", path_.c_str());
  }
  temporary_.clear();
  if (durable) CUBE_TRY(SyncFolder(FolderOf(path_)));
  return manifest_.id;
}

Status SnapshotWriter::Sync() {
  // All are under way, and their blocks laid out, before the first is waited for: one commit of the
  // file system's journal has them all. What cannot be begun early is done by fsync.
  for (const UniqueFd& file : files_) {
    (void)sync_file_range(file.get(), 0, 0, SYNC_FILE_RANGE_WRITE);
  }
  for (const UniqueFd& file : files_) {
    if (fsync(file.get()) < 0) return ErrnoError("fsync of a file of %s", path_.c_str());
  }
  CUBE_TRY(SyncFolder(temporary_));
  synced_at_ = MonotonicNow();
  return OkStatus();
}

Status RemoveSnapshot(const std::string& path) {
  CUBE_ASSIGN(std::string id, NewSnapshotId());
  std::string removed = FolderOf(path) + "/" + kUnpublishedPrefix + id;
  if (rename(path.c_str(), removed.c_str()) < 0)
    return ErrnoError("cannot remove %s", path.c_str());
  std::error_code failed;
  std::filesystem::remove_all(removed, failed);
  if (failed) return Errorf("cannot remove %s: %s", removed.c_str(), failed.message().c_str());
  return OkStatus();
}

void RemoveUnpublished(const std::string& folder) {
  std::error_code failed;
  for (std::filesystem::directory_iterator at(folder, failed), end; !failed && at != end;
       at.increment(failed)) {
    if (!at->path().filename().string().starts_with(kUnpublishedPrefix)) continue;
    // Whose it is not, and where it leads elsewhere, it is none of ours.
    auto held = OpenFile(at->path().string(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    struct stat info;
    if (!held.ok() || fstat(held->get(), &info) < 0 || info.st_uid != geteuid()) continue;
    if (flock(held->get(), LOCK_EX | LOCK_NB) < 0) continue;  // its writer lives
    std::error_code ignored;
    std::filesystem::remove_all(at->path(), ignored);
  }
}

}  // namespace cube::snapshot
