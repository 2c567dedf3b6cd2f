#include "pool/snapshot_shelf.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>

#include <filesystem>

#include "base/unique_fd.h"
#include "snapshot/manifest.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

// A folder that a writer, which holds a lock on it, is still filling.
bool IsBeingWritten(const fs::path& path) {
  if (!path.filename().string().starts_with('.')) return false;
  auto folder = OpenFile(path, O_RDONLY | O_DIRECTORY);
  return folder.ok() && flock(folder->get(), LOCK_EX | LOCK_NB) < 0;
}

// Chains are kept shorter (Config::max_chain); one that is longer is a circle.
constexpr size_t kMaxDepth = 1000;

}  // namespace

Status SnapshotShelf::Open() {
  std::error_code failed;
  fs::create_directories(folder_, failed);
  if (!failed) fs::permissions(folder_, fs::perms::owner_all, failed);
  // One name for each folder, whatever links and slashes lead to it: they are compared.
  if (!failed) folder_ = fs::canonical(folder_, failed);
  if (failed) return Errorf("%s: %s", folder_.c_str(), failed.message().c_str());
  CUBE_ASSIGN(std::vector<SnapshotRecord> all, store_->Snapshots());
  for (SnapshotRecord& record : all) records_.emplace(record.id, std::move(record));
  return OkStatus();
}

Outcome<std::string> SnapshotShelf::NewPath() const {
  POOL_ASSIGN(std::string id, snapshot::NewSnapshotId());
  return folder_ + "/" + id;
}

Status SnapshotShelf::Add(SnapshotRecord record) {
  CUBE_TRY(store_->Put(record));
  records_[record.id] = std::move(record);
  return OkStatus();
}

Outcome<SnapshotRecord> SnapshotShelf::Find(const std::string& id) const {
  auto found = records_.find(id);
  if (found == records_.end() || !found->second.named) {
    return Refuse(Fault::kNotFound, "there is no snapshot \"%.64s\"", id.c_str());
  }
  return found->second;
}

Outcome<Done> SnapshotShelf::Disown(const std::string& id) {
  POOL_ASSIGN(SnapshotRecord record, Find(id));
  record.named = false;
  POOL_TRY(Add(std::move(record)));
  return Done();
}

std::vector<SnapshotRecord> SnapshotShelf::Named() const {
  std::vector<SnapshotRecord> named;
  for (const auto& [id, record] : records_) {
    if (record.named) named.push_back(record);
  }
  return named;
}

std::string SnapshotShelf::NameOf(const std::string& path) const {
  const std::string mine = folder_ + "/";
  if (path.starts_with(mine) && path.find('/', mine.size()) == std::string::npos) return path;
  std::error_code failed;
  fs::path name = fs::weakly_canonical(path, failed);
  if (failed) name = fs::path(path).lexically_normal();
  // A folder's path does not end with a slash here.
  return name.has_filename() ? name : name.parent_path();
}

Result<std::string> SnapshotShelf::Parent(const std::string& path) {
  auto found = parents_.find(path);
  if (found != parents_.end()) return found->second;
  auto manifest = snapshot::Manifest::Load(path);
  if (!manifest.ok()) {
    // One that is being written has its name once it is whole: what it says then is not known now.
    std::error_code failed;
    if (!fs::exists(path, failed) && !failed) return std::string();
    return manifest.error();
  }
  std::string parent;
  if (!manifest->parent.empty()) {
    parent = NameOf(fs::path(path) / manifest->parent_path);
  }
  return parents_[path] = parent;
}

size_t SnapshotShelf::Depth(const std::string& path) {
  size_t depth = 0;
  for (auto at = Parent(path); at.ok() && !at->empty() && depth < kMaxDepth; at = Parent(*at)) {
    ++depth;
  }
  return depth;
}

void SnapshotShelf::Collect(const std::set<std::string>& roots) {
  std::set<std::string> needed, starts;
  for (const std::string& root : roots) starts.insert(NameOf(root));
  for (const auto& [id, record] : records_) {
    if (record.named) starts.insert(NameOf(record.path));
  }
  for (const std::string& start : starts) {
    std::string at = start;
    while (!at.empty() && needed.insert(at).second) {
      auto parent = Parent(at);
      if (!parent.ok()) {
        spdlog::error("no snapshot is deleted: {}", parent.error().message());
        return;
      }
      at = std::move(*parent);
    }
  }
  for (auto record = records_.begin(); record != records_.end();) {
    if (needed.contains(NameOf(record->second.path)) ||
        !store_->RemoveSnapshot(record->first).ok()) {
      ++record;
    } else {
      record = records_.erase(record);
    }
  }
  // The folder after the record: one that is known is there.
  std::error_code failed;
  std::vector<std::string> gone;
  for (fs::directory_iterator one(folder_, failed), end; !failed && one != end;
       one.increment(failed)) {
    std::string path = one->path();
    if (!needed.contains(path) && !IsBeingWritten(path)) gone.push_back(path);
  }
  for (const std::string& path : gone) {
    parents_.erase(path);
    fs::remove_all(path, failed);
    if (failed) spdlog::warn("deleting {}: {}", path, failed.message());
  }
}

bool SnapshotShelf::IsWhole(const std::string& path) {
  return !path.empty() && snapshot::Manifest::Load(path).ok();
}

}  // namespace cube::pool
