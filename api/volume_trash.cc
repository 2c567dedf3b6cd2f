#include "api/volume_trash.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace cube::api {
namespace {

struct CloseFolder {
  void operator()(DIR* folder) const { closedir(folder); }
};
using Folder = std::unique_ptr<DIR, CloseFolder>;

Folder OpenFolder(int parent, const char* name) {
  UniqueFd fd(openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return nullptr;
  Folder folder(fdopendir(fd.get()));
  if (folder != nullptr) fd.Release();
  return folder;
}

bool IsSelfOrParent(const char* name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

}  // namespace

Result<VolumeTrash> VolumeTrash::Open(const std::string& folder) {
  if (mkdir(folder.c_str(), 0700) < 0 && errno != EEXIST) return ErrnoError("%s", folder.c_str());
  CUBE_ASSIGN(UniqueFd fd, OpenFile(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  return VolumeTrash(std::move(fd));
}

// Of no file that is there, be it from a process before.
std::string VolumeTrash::NewName() {
  for (;;) {
    std::string name = std::to_string(next_++);
    if (faccessat(folder_.get(), name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) < 0) return name;
  }
}

int VolumeTrash::Take(int parent, const char* name) {
  const int moved = renameat(parent, name, folder_.get(), NewName().c_str());
  return moved < 0 ? errno : 0;
}

bool VolumeTrash::EmptyFolder(const char* name, size_t* count, size_t* done) {
  Folder folder = OpenFolder(folder_.get(), name);
  if (folder == nullptr) return true;
  const int fd = dirfd(folder.get());
  while (const dirent* item = readdir(folder.get())) {
    if (IsSelfOrParent(item->d_name)) continue;
    if (*count == 0) return false;
    --*count;
    // A folder that has something in it comes up here, beside the one that it was in.
    const bool gone = unlinkat(fd, item->d_name, 0) == 0 ||
                      unlinkat(fd, item->d_name, AT_REMOVEDIR) == 0 || Take(fd, item->d_name) == 0;
    if (gone) ++*done;
  }
  return true;
}

bool VolumeTrash::Empty(size_t count) {
  Folder folder = OpenFolder(folder_.get(), ".");
  size_t done = 0;
  while (const dirent* item = folder != nullptr ? readdir(folder.get()) : nullptr) {
    if (IsSelfOrParent(item->d_name)) continue;
    if (count == 0) break;
    if (unlinkat(folder_.get(), item->d_name, 0) == 0) {
      --count;
      ++done;
    } else if (!EmptyFolder(item->d_name, &count, &done)) {
      break;
    } else if (unlinkat(folder_.get(), item->d_name, AT_REMOVEDIR) == 0) {
      ++done;
    }
  }
  return done != 0;
}

}  // namespace cube::api
