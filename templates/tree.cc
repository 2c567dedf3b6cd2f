#include "templates/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/byte_io.h"

namespace cube::templates {
namespace {

// Of folders in folders that are deleted: each has a descriptor open.
constexpr int kMaxDepth = 400;

Status RemoveContent(UniqueFd folder, int depth);

Status RemoveEntry(int folder, const char* name, int depth) {
  if (unlinkat(folder, name, 0) == 0 || errno == ENOENT) return OkStatus();
  if (errno != EISDIR) return ErrnoError("cannot remove %s", name);
  if (depth > kMaxDepth) return Errorf("folders are more than %d deep", kMaxDepth);
  UniqueFd inner(openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!inner.valid()) return ErrnoError("cannot open %s", name);
  CUBE_TRY(RemoveContent(std::move(inner), depth + 1));
  if (unlinkat(folder, name, AT_REMOVEDIR) < 0) return ErrnoError("cannot remove %s", name);
  return OkStatus();
}

Status RemoveContent(UniqueFd folder, int depth) {
  CUBE_ASSIGN(std::vector<std::string> names, NamesIn(folder.get()));
  for (const std::string& name : names) CUBE_TRY(RemoveEntry(folder.get(), name.c_str(), depth));
  return OkStatus();
}

}  // namespace

Result<std::vector<std::string>> NamesIn(int folder) {
  UniqueFd copy(openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!copy.valid()) return ErrnoError("cannot open a folder");
  DIR* entries = fdopendir(copy.get());
  if (entries == nullptr) return ErrnoError("fdopendir");
  copy.Release();  // closedir() closes it
  std::vector<std::string> names;
  while (const dirent* entry = readdir(entries)) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  closedir(entries);
  return names;
}

Result<Tree> Tree::Open(const std::string& path) {
  CUBE_ASSIGN(UniqueFd root, OpenFile(path, O_PATH | O_DIRECTORY));
  return Tree(std::move(root));
}

Result<std::string> Tree::Normalize(std::string_view path) {
  if (path.size() >= PATH_MAX) {
    return Errorf("a path of %zu bytes, at most %d are possible", path.size(), PATH_MAX - 1);
  }
  if (path.find('\0') != std::string_view::npos) return Errorf("a path with a zero byte");
  std::string normal;
  while (!path.empty()) {
    size_t end = std::min(path.find('/'), path.size());
    std::string_view name = path.substr(0, end);
    path.remove_prefix(std::min(end + 1, path.size()));
    if (name.empty() || name == ".") continue;
    if (name == "..") return Errorf("a path with \"..\"");
    if (!normal.empty()) normal += '/';
    normal += name;
  }
  return normal;
}

Result<UniqueFd> Tree::OpenInside(const std::string& path, int flags) const {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
  long fd;
  do {  // EAGAIN: something was renamed meanwhile
    fd = syscall(SYS_openat2, root_.get(), path.empty() ? "." : path.c_str(), &how, sizeof how);
  } while (fd < 0 && errno == EAGAIN);
  if (fd >= 0) return UniqueFd(static_cast<int>(fd));
  const int error = errno;
  Error why = ErrnoError("%s", path.c_str());
  errno = error;
  return why;
}

Result<UniqueFd> Tree::OpenFolder(const std::string& path) const {
  return OpenInside(path, O_RDONLY | O_DIRECTORY);
}

Result<UniqueFd> Tree::OpenFileForReading(const std::string& path) const {
  CUBE_ASSIGN(std::string normal, Normalize(path));
  // Without waiting for who might write to a FIFO.
  CUBE_ASSIGN(UniqueFd file, OpenInside(normal, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  struct stat info;
  if (fstat(file.get(), &info) < 0) return ErrnoError("%s", normal.c_str());
  if (!S_ISREG(info.st_mode)) return Errorf("%s is not a regular file", normal.c_str());
  return file;
}

Result<Tree::Place> Tree::Find(const std::string& path, bool make) const {
  if (path.empty()) return Errorf("the root is no place for an entry");
  size_t slash = path.rfind('/');
  std::string above = slash == std::string::npos ? "" : path.substr(0, slash);
  Place place;
  place.name = slash == std::string::npos ? path : path.substr(slash + 1);
  auto folder = OpenFolder(above);
  if (!folder.ok() && errno == ENOENT && make) {
    CUBE_TRY(MakeFolder(above, 0755));
    folder = OpenFolder(above);
  }
  if (!folder.ok()) return folder.error();
  place.folder = std::move(*folder);
  return place;
}

Status Tree::MakeFolder(const std::string& path, mode_t mode) const {
  // Step by step: each may be a link to a folder.
  for (size_t slash = 0; slash != std::string::npos;) {
    slash = path.find('/', slash + 1);
    std::string part = path.substr(0, slash);
    auto there = OpenFolder(part);
    if (there.ok()) continue;
    if (errno != ENOENT) return there.error();
    CUBE_ASSIGN(Place place, Find(part, false));
    if (mkdirat(place.at(), place.c_str(), slash == std::string::npos ? mode : 0755) < 0) {
      return ErrnoError("cannot make %s", part.c_str());
    }
  }
  return OkStatus();
}

Status Tree::WriteFile(const std::string& path, std::string_view content, mode_t mode) const {
  CUBE_ASSIGN(Place place, Find(path, true));
  CUBE_TRY(Remove(place.at(), place.name));
  UniqueFd file(openat(place.at(), place.c_str(),
                       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!file.valid()) return ErrnoError("cannot make %s", path.c_str());
  return WriteAll(file.get(), {reinterpret_cast<const uint8_t*>(content.data()), content.size()},
                  path.c_str());
}

Status Tree::Remove(int folder, const std::string& name) {
  return RemoveEntry(folder, name.c_str(), 0);
}

}  // namespace cube::templates
