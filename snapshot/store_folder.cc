#include "snapshot/store_folder.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "snapshot/publish.h"

namespace cube::snapshot {
namespace {

// Names in a folder, sorted, without those that are not published.
Result<std::vector<std::string>> Names(const std::string& folder, const char* suffix) {
  std::vector<std::string> names;
  std::error_code failed;
  for (std::filesystem::directory_iterator at(folder, failed), end; !failed && at != end;
       at.increment(failed)) {
    std::string name = at->path().filename().string();
    if (name.ends_with(suffix) && !name.starts_with(kUnpublishedPrefix)) names.push_back(name);
  }
  if (failed) return Errorf("%s: %s", folder.c_str(), failed.message().c_str());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

Result<StoreFolder> StoreFolder::Of(const std::string& folder) {
  // Not by ".." of a path that may be a link.
  char* real = realpath(folder.c_str(), nullptr);
  if (real == nullptr) return ErrnoError("%s", folder.c_str());
  StoreFolder store(FolderOf(FolderOf(real)));
  free(real);
  struct stat info;
  if (stat(store.packs().c_str(), &info) < 0 || !S_ISDIR(info.st_mode)) {
    return Errorf("%s has its memory in a page store and is not in one: %s is no folder",
                  folder.c_str(), store.packs().c_str());
  }
  return store;
}

Status StoreFolder::Create() const {
  std::error_code failed;
  for (const std::string& folder : {packs(), snapshots()}) {
    std::filesystem::create_directories(folder, failed);
    if (failed) return Errorf("%s: %s", folder.c_str(), failed.message().c_str());
  }
  CUBE_ASSIGN(UniqueFd lock, OpenFile(root_ + "/lock", O_RDONLY | O_CREAT, 0644));
  return OkStatus();
}

Result<UniqueFd> StoreFolder::Lock(bool exclusive) const {
  CUBE_ASSIGN(UniqueFd lock, OpenFile(root_ + "/lock", O_RDONLY));
  while (flock(lock.get(), exclusive ? LOCK_EX : LOCK_SH) < 0) {
    if (errno != EINTR) return ErrnoError("locking %s/lock", root_.c_str());
  }
  return lock;
}

Result<std::vector<Pack>> StoreFolder::OpenPacks(std::vector<Error>* unreadable) const {
  CUBE_ASSIGN(std::vector<std::string> names, Names(packs(), ".pack"));
  std::vector<Pack> opened;
  for (const std::string& name : names) {
    auto pack = Pack::Open(packs() + "/" + name);
    if (pack.ok()) {
      opened.push_back(std::move(*pack));
    } else if (unreadable != nullptr) {
      unreadable->push_back(pack.error());
    } else {
      return pack.error();
    }
  }
  return opened;
}

Result<std::vector<std::string>> StoreFolder::Snapshots() const { return Names(snapshots(), ""); }

}  // namespace cube::snapshot
