#include "api/volume_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/json_writer.h"

namespace cube::api {
namespace {

using pool::Done;
using pool::Fault;
using pool::Outcome;
using pool::Refusal;
using pool::Refuse;

constexpr mode_t kFolderMode = 0755, kFileMode = 0644, kAllModes = 07777;

// The fault that the host's error number tells of.
Refusal Failed(const std::string& path, int error) {
  const std::string shown = path.substr(0, 500);
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return Refuse(Fault::kNotFound, "path \"%s\" not found", shown.c_str());
    case EEXIST:
    case EISDIR:
    case ENOTEMPTY:
      return Refuse(Fault::kConflict, "\"%s\" is there already", shown.c_str());
    case ELOOP:
    case EXDEV:
    case EPERM:
    case EACCES:
    case ENAMETOOLONG:
    case EINVAL:
      return Refuse(Fault::kInvalid, "\"%s\": %s", shown.c_str(), strerror(error));
    default:
      return Refuse(Fault::kInternal, "\"%s\": %s", shown.c_str(), strerror(error));
  }
}

std::string Joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += "/" + name;
  return text.empty() ? "/" : text;
}

// One that looks at no link, and at nothing outside the folder.
UniqueFd OpenBeneath(int folder, const char* path, uint64_t flags) {
  open_how how = {};
  how.flags = flags | O_CLOEXEC | O_NOFOLLOW;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return UniqueFd(static_cast<int>(syscall(SYS_openat2, folder, path, &how, sizeof how)));
}

int64_t MillisecondsOf(const timespec& time) {
  return int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000;
}

VolumeEntry EntryOf(const struct stat& about, const std::string& path) {
  VolumeEntry entry;
  entry.path = path;
  entry.name = path.substr(path.rfind('/') + 1);
  if (S_ISREG(about.st_mode)) entry.type = "file";
  if (S_ISDIR(about.st_mode)) entry.type = "directory";
  if (S_ISLNK(about.st_mode)) entry.type = "symlink";
  entry.size = static_cast<uint64_t>(about.st_size);
  entry.mode = about.st_mode & kAllModes;
  entry.uid = about.st_uid;
  entry.gid = about.st_gid;
  entry.accessed_ms = MillisecondsOf(about.st_atim);
  entry.modified_ms = MillisecondsOf(about.st_mtim);
  entry.changed_ms = MillisecondsOf(about.st_ctim);
  return entry;
}

Outcome<Done> Apply(int fd, const std::string& path, const VolumeAttributes& wanted) {
  if (wanted.uid || wanted.gid) {
    uid_t uid = wanted.uid.value_or(static_cast<uid_t>(-1));
    gid_t gid = wanted.gid.value_or(static_cast<gid_t>(-1));
    if (fchown(fd, uid, gid) < 0) return Failed(path, errno);
  }
  if (wanted.mode && fchmod(fd, *wanted.mode & kAllModes) < 0) return Failed(path, errno);
  return Done();
}

Outcome<VolumeEntry> Stat(int fd, const std::string& path) {
  struct stat about;
  if (fstat(fd, &about) < 0) return Failed(path, errno);
  return EntryOf(about, path);
}

struct CloseFolder {
  void operator()(DIR* folder) const { closedir(folder); }
};
using Folder = std::unique_ptr<DIR, CloseFolder>;

Folder Read(UniqueFd fd) {
  Folder folder(fdopendir(fd.get()));
  if (folder != nullptr) fd.Release();
  return folder;
}

bool IsSelfOrParent(const char* name) {
  return std::strcmp(name, ".") == 0 || std::strcmp(name, "..") == 0;
}

Outcome<Done> ListIn(UniqueFd fd, const std::string& path, int depth,
                     std::vector<VolumeEntry>* all) {
  Folder folder = Read(std::move(fd));
  if (folder == nullptr) return Failed(path, errno);
  while (const dirent* item = readdir(folder.get())) {
    // Only what came in by the front door can be told in JSON.
    if (IsSelfOrParent(item->d_name) || !IsUtf8(item->d_name)) continue;
    if (all->size() >= VolumeFiles::kMaxListed) {
      return Refuse(Fault::kInvalid, "\"%.500s\" has more than %zu entries", path.c_str(),
                    VolumeFiles::kMaxListed);
    }
    struct stat about;
    if (fstatat(dirfd(folder.get()), item->d_name, &about, AT_SYMLINK_NOFOLLOW) < 0) continue;
    const std::string inner = (path == "/" ? "" : path) + "/" + item->d_name;
    all->push_back(EntryOf(about, inner));
    if (depth <= 1 || !S_ISDIR(about.st_mode)) continue;
    UniqueFd next = OpenBeneath(dirfd(folder.get()), item->d_name, O_RDONLY | O_DIRECTORY);
    if (next.valid()) POOL_TRY(ListIn(std::move(next), inner, depth - 1, all));
  }
  return Done();
}

}  // namespace

Outcome<VolumePath> VolumePath::Parse(const std::string& text) {
  if (text.empty() || text.size() > kMaxBytes || !IsUtf8(text) ||
      text.find('\0') != std::string::npos) {
    return Refuse(Fault::kInvalid, "\"path\" is not one of at most %zu bytes of UTF-8", kMaxBytes);
  }
  VolumePath path;
  for (size_t place = 0; place < text.size();) {
    size_t end = std::min(text.find('/', place), text.size());
    std::string name = text.substr(place, end - place);
    place = end + 1;
    if (name.empty() || name == ".") continue;
    if (name == "..") return Refuse(Fault::kInvalid, "\"path\" has \"..\"");
    if (name.size() > kMaxName) {
      return Refuse(Fault::kInvalid, "\"path\" has a name of %zu bytes, of at most %zu",
                    name.size(), kMaxName);
    }
    path.names_.push_back(std::move(name));
  }
  if (path.names_.size() > kMaxDepth) {
    return Refuse(Fault::kInvalid, "\"path\" is %zu deep, of at most %zu", path.names_.size(),
                  kMaxDepth);
  }
  return path;
}

std::string VolumePath::Text() const { return Joined(names_); }

Outcome<UniqueFd> VolumeFiles::At(const std::vector<std::string>& names, int flags) const {
  std::string path = names.empty() ? "." : Joined(names).substr(1);
  UniqueFd fd = OpenBeneath(root_.get(), path.c_str(), static_cast<uint64_t>(flags));
  if (!fd.valid()) return Failed(Joined(names), errno);
  return fd;
}

Outcome<VolumeAttributes> VolumeFiles::Complete(VolumeAttributes attributes) const {
  struct stat root;
  if (fstat(root_.get(), &root) < 0) return Failed("/", errno);
  if (!attributes.uid) attributes.uid = root.st_uid;
  if (!attributes.gid) attributes.gid = root.st_gid;
  return attributes;
}

Outcome<UniqueFd> VolumeFiles::Parent(const VolumePath& path, bool make) const {
  if (path.IsRoot()) return Refuse(Fault::kInvalid, "\"path\" is the volume's root");
  std::vector<std::string> names(path.names().begin(), path.names().end() - 1);
  if (make) {
    std::vector<std::string> above;
    POOL_ASSIGN(VolumeAttributes owner, Complete({}));
    for (const std::string& name : names) {
      POOL_ASSIGN(UniqueFd folder, At(above, O_RDONLY | O_DIRECTORY));
      above.push_back(name);
      if (mkdirat(folder.get(), name.c_str(), kFolderMode) == 0) {
        POOL_ASSIGN(UniqueFd made, At(above, O_RDONLY | O_DIRECTORY));
        POOL_TRY(Apply(made.get(), Joined(above), owner));
      } else if (errno != EEXIST) {
        return Failed(Joined(above), errno);
      }
    }
  }
  return At(names, O_RDONLY | O_DIRECTORY);
}

Outcome<VolumeEntry> VolumeFiles::Look(const VolumePath& path) const {
  POOL_ASSIGN(UniqueFd fd, At(path.names(), O_PATH));
  return Stat(fd.get(), path.Text());
}

Outcome<std::vector<VolumeEntry>> VolumeFiles::List(const VolumePath& path, int depth) const {
  POOL_ASSIGN(UniqueFd fd, At(path.names(), O_RDONLY | O_DIRECTORY));
  std::vector<VolumeEntry> all;
  POOL_TRY(ListIn(std::move(fd), path.Text(), depth, &all));
  std::sort(all.begin(), all.end(),
            [](const VolumeEntry& a, const VolumeEntry& b) { return a.path < b.path; });
  return all;
}

Outcome<VolumeEntry> VolumeFiles::MakeFolder(const VolumePath& path,
                                             const VolumeAttributes& attributes, bool force) const {
  POOL_ASSIGN(UniqueFd parent, Parent(path, force));
  const std::string& name = path.names().back();
  bool is_new = mkdirat(parent.get(), name.c_str(), kFolderMode) == 0;
  if (!is_new && (errno != EEXIST || !force)) return Failed(path.Text(), errno);
  UniqueFd fd = OpenBeneath(parent.get(), name.c_str(), O_RDONLY | O_DIRECTORY);
  if (!fd.valid()) {
    if (errno == ENOTDIR) return Failed(path.Text(), EEXIST);
    return Failed(path.Text(), errno);
  }
  VolumeAttributes wanted = attributes;
  if (is_new) {
    POOL_ASSIGN(wanted, Complete(wanted));
  }
  auto applied = Apply(fd.get(), path.Text(), wanted);
  if (!applied.ok()) {
    if (is_new) unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR);
    return applied.refusal();
  }
  return Stat(fd.get(), path.Text());
}

Outcome<VolumeEntry> VolumeFiles::Change(const VolumePath& path,
                                         const VolumeAttributes& attributes) const {
  POOL_ASSIGN(UniqueFd fd, At(path.names(), O_RDONLY | O_NONBLOCK));
  POOL_TRY(Apply(fd.get(), path.Text(), attributes));
  return Stat(fd.get(), path.Text());
}

Outcome<Done> VolumeFiles::Remove(const VolumePath& path, VolumeTrash* trash) const {
  POOL_ASSIGN(UniqueFd parent, Parent(path, false));
  const char* name = path.names().back().c_str();
  if (unlinkat(parent.get(), name, 0) == 0) return Done();
  if (errno != EISDIR && errno != EPERM) return Failed(path.Text(), errno);
  if (int error = trash->Take(parent.get(), name)) return Failed(path.Text(), error);
  return Done();
}

Outcome<UniqueFd> VolumeFiles::Open(const VolumePath& path) const {
  POOL_ASSIGN(UniqueFd fd, At(path.names(), O_RDONLY | O_NONBLOCK));
  struct stat about;
  if (fstat(fd.get(), &about) < 0) return Failed(path.Text(), errno);
  if (!S_ISREG(about.st_mode)) {
    return Refuse(Fault::kInvalid, "\"%.500s\" is not a file", path.Text().c_str());
  }
  return fd;
}

Outcome<VolumeEntry> VolumeFiles::Place(const std::string& source, const VolumePath& path,
                                        const VolumeAttributes& attributes, bool force) const {
  POOL_ASSIGN(UniqueFd parent, Parent(path, force));
  POOL_ASSIGN(UniqueFd file, OpenFile(source, O_RDONLY | O_NOFOLLOW));
  POOL_ASSIGN(VolumeAttributes all, Complete(attributes));
  if (!all.mode) all.mode = kFileMode;
  POOL_TRY(Apply(file.get(), path.Text(), all));
  const std::string& name = path.names().back();
  if (renameat(AT_FDCWD, source.c_str(), parent.get(), name.c_str()) < 0) {
    return Failed(path.Text(), errno);
  }
  return Stat(file.get(), path.Text());
}

}  // namespace cube::api
