#include "templates/layer_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <unordered_set>
#include <utility>
#include <vector>

#include "templates/digest.h"

namespace cube::templates {
namespace {

constexpr size_t kBlock = 256 * 1024;
constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";
constexpr std::string_view kAufs = ".wh..wh.";

using Reader = std::unique_ptr<archive, int (*)(archive*)>;

Error ArchiveError(archive* reader, const std::string& what) {
  const char* text = archive_error_string(reader);
  return Errorf("%s: %.300s", what.c_str(), text != nullptr ? text : "damaged");
}

Result<Reader> OpenArchive(int fd, const std::string& what, bool raw) {
  if (lseek(fd, 0, SEEK_SET) < 0) return ErrnoError("%s", what.c_str());
  Reader reader(archive_read_new(), archive_read_free);
  // Nothing but these: some of the library's filters run programs.
  archive_read_support_filter_gzip(reader.get());
  archive_read_support_filter_zstd(reader.get());
  if (raw) {
    archive_read_support_format_raw(reader.get());
  } else {
    archive_read_support_format_tar(reader.get());
    archive_read_support_format_empty(reader.get());
  }
  if (archive_read_open_fd(reader.get(), fd, kBlock) != ARCHIVE_OK) {
    return ArchiveError(reader.get(), what);
  }
  return reader;
}

std::string ParentOf(const std::string& path) {
  size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

class LayerUnpacker {
 public:
  LayerUnpacker(Reader reader, const std::string& what, ArchiveKind kind, const Tree& tree,
                UnpackBudget* budget)
      : reader_(std::move(reader)), what_(what), kind_(kind), tree_(tree), budget_(budget) {}

  Status Run() {
    while (true) {
      archive_entry* entry = nullptr;
      int status = archive_read_next_header(reader_.get(), &entry);
      if (status == ARCHIVE_EOF) break;
      // A warning means that something of the header was not understood.
      if (status != ARCHIVE_OK) return ArchiveError(reader_.get(), what_);
      const char* name = archive_entry_pathname(entry);
      if (name == nullptr) return Errorf("%s: an entry without a name", what_.c_str());
      Status made = Make(name, entry);
      if (!made.ok()) {
        return Error(made.error())
            .Wrap(what_ + ", entry \"" + std::string(name).substr(0, 200) + '"');
      }
    }
    // Those of folders last: what is made in a folder changes its times.
    for (auto at = folders_.rbegin(); at != folders_.rend(); ++at) {
      auto folder = tree_.OpenFolder(at->first);
      if (folder.ok()) SetTimes(folder->get(), at->second);
    }
    return OkStatus();
  }

 private:
  Status Make(const char* name, archive_entry* entry) {
    if (budget_->entries == 0) return Errorf("there are too many entries");
    --budget_->entries;
    for (int64_t id : {archive_entry_uid(entry), archive_entry_gid(entry)}) {
      if (id < 0 || id >= UINT32_MAX) {
        return Errorf("has an owner's number of %lld", static_cast<long long>(id));
      }
    }
    CUBE_ASSIGN(std::string path, Tree::Normalize(name));
    if (kind_ == ArchiveKind::kLayer && !path.empty()) {
      std::string base = path.substr(path.rfind('/') + 1);
      if (base == kOpaque) return HideFolder(ParentOf(path));
      if (base.starts_with(kAufs)) return OkStatus();  // book-keeping of AUFS
      if (base.starts_with(kWhiteout)) return Hide(ParentOf(path), base.substr(kWhiteout.size()));
    }
    if (archive_entry_hardlink(entry) != nullptr) {
      return MakeHardLink(path, archive_entry_hardlink(entry));
    }
    mode_t type = archive_entry_filetype(entry);
    if (path.empty()) {
      if (type != S_IFDIR) return Errorf("the root is not a folder");
    } else if (path == "dev" && type != S_IFDIR) {
      return Errorf("dev is not a folder");
    } else if (path.starts_with("dev/")) {
      return OkStatus();
    }
    switch (type) {
      case S_IFDIR:
        return MakeFolder(path, entry);
      case S_IFREG:
        return MakeFile(path, entry);
      case S_IFLNK:
        return MakeSymbolicLink(path, entry);
      case S_IFCHR:
      case S_IFBLK:
      case S_IFIFO:
        return MakeNode(path, entry);
      default:
        return Errorf("is of a kind that is not known, %o", type);
    }
  }

  static bool IsRealFolder(int folder, const std::string& name) {
    struct stat info;
    return fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(info.st_mode);
  }

  // Whiteouts are about the layers below: what this one has made stays.
  bool IsOwn(const std::string& path) const { return own_.contains(path); }

  Status Hide(const std::string& folder, const std::string& name) {
    if (name.empty() || name == "." || name == "..") return Errorf("a whiteout of nothing");
    const std::string path = folder.empty() ? name : folder + "/" + name;
    auto place = tree_.Find(path, false);
    if (!place.ok())
      return errno == ENOENT || errno == ENOTDIR ? OkStatus() : Status(place.error());
    if (!IsOwn(path)) return Tree::Remove(place->at(), place->name);
    return IsRealFolder(place->at(), place->name) ? HideFolder(path) : OkStatus();
  }

  Status HideFolder(const std::string& path) {
    auto folder = tree_.OpenFolder(path);
    if (!folder.ok()) {
      return errno == ENOENT || errno == ENOTDIR ? OkStatus() : Status(folder.error());
    }
    CUBE_ASSIGN(std::vector<std::string> names, NamesIn(folder->get()));
    for (const std::string& name : names) {
      const std::string inner = path.empty() ? name : path + "/" + name;
      if (!IsOwn(inner)) {
        CUBE_TRY(Tree::Remove(folder->get(), name));
        continue;
      }
      // Made by this layer, but perhaps over what was there.
      if (IsRealFolder(folder->get(), name)) CUBE_TRY(HideFolder(inner));
    }
    return OkStatus();
  }

  void NoteOwn(const std::string& path) {
    for (std::string at = path; !at.empty() && own_.insert(at).second;) at = ParentOf(at);
  }

  // The place for a new entry, empty.
  Result<Tree::Place> MakeRoom(const std::string& path) {
    CUBE_ASSIGN(Tree::Place place, tree_.Find(path, true));
    CUBE_TRY(Tree::Remove(place.at(), place.name));
    NoteOwn(path);
    return place;
  }

  Status MakeFolder(const std::string& path, archive_entry* entry) {
    UniqueFd folder;
    if (path.empty()) {
      CUBE_ASSIGN(folder, tree_.OpenFolder(path));
    } else {
      CUBE_ASSIGN(Tree::Place place, tree_.Find(path, true));
      struct stat info;
      bool there = fstatat(place.at(), place.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
      if (there && !S_ISDIR(info.st_mode)) {
        CUBE_TRY(Tree::Remove(place.at(), place.name));
        there = false;
      }
      if (!there && mkdirat(place.at(), place.c_str(), 0700) < 0) return ErrnoError("mkdir");
      folder.Reset(
          openat(place.at(), place.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!folder.valid()) return ErrnoError("cannot open it");
      NoteOwn(path);
    }
    CUBE_TRY(SetOwnerAndMode(folder.get(), entry));
    folders_.emplace_back(path, TimesOf(entry));
    return OkStatus();
  }

  Status MakeFile(const std::string& path, archive_entry* entry) {
    int64_t size = archive_entry_size(entry);
    if (size < 0) return Errorf("has no size");
    CUBE_TRY(Take(static_cast<uint64_t>(size)));
    CUBE_ASSIGN(Tree::Place place, MakeRoom(path));
    UniqueFd file(openat(place.at(), place.c_str(),
                         O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file.valid()) return ErrnoError("cannot make it");
    // The library leaves out the holes of sparse files.
    if (ftruncate(file.get(), size) < 0)
      return ErrnoError("cannot make it of %lld bytes", static_cast<long long>(size));
    while (true) {
      const void* data = nullptr;
      size_t bytes = 0;
      la_int64_t offset = 0;
      int status = archive_read_data_block(reader_.get(), &data, &bytes, &offset);
      if (status == ARCHIVE_EOF) break;
      if (status != ARCHIVE_OK) return ArchiveError(reader_.get(), "its content");
      if (offset < 0 || offset > size || bytes > static_cast<uint64_t>(size - offset)) {
        return Errorf("has content beyond its %lld bytes", static_cast<long long>(size));
      }
      CUBE_TRY(WriteAt(file.get(), data, bytes, offset));
    }
    CUBE_TRY(SetOwnerAndMode(file.get(), entry));
    SetTimes(file.get(), TimesOf(entry));
    return OkStatus();
  }

  static Status WriteAt(int fd, const void* data, size_t size, off_t offset) {
    const auto* from = static_cast<const char*>(data);
    while (size > 0) {
      ssize_t n = pwrite(fd, from, size, offset);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError("cannot write it");
      from += n;
      offset += n;
      size -= static_cast<size_t>(n);
    }
    return OkStatus();
  }

  Status MakeHardLink(const std::string& path, const char* target_name) {
    if (path.empty()) return Errorf("the root is not a folder");
    if (path.starts_with("dev/")) return OkStatus();
    CUBE_ASSIGN(std::string target, Tree::Normalize(target_name));
    if (target == path) return OkStatus();
    auto from = tree_.Find(target, false);
    struct stat info;
    if (!from.ok() || fstatat(from->at(), from->c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) {
      return Errorf("is a link to \"%.200s\", which is not there", target.c_str());
    }
    if (S_ISDIR(info.st_mode)) {
      return Errorf("is a hard link to \"%.200s\", a folder", target.c_str());
    }
    CUBE_ASSIGN(Tree::Place place, MakeRoom(path));
    if (linkat(from->at(), from->c_str(), place.at(), place.c_str(), 0) < 0) {
      return ErrnoError("cannot be a link to \"%.200s\"", target.c_str());
    }
    return OkStatus();
  }

  Status MakeSymbolicLink(const std::string& path, archive_entry* entry) {
    const char* target = archive_entry_symlink(entry);
    if (target == nullptr || target[0] == '\0') return Errorf("is a link to nothing");
    if (strlen(target) > UnpackBudget::kMaxLinkTarget) {
      return Errorf("is a link with a target of %zu bytes", strlen(target));
    }
    CUBE_ASSIGN(Tree::Place place, MakeRoom(path));
    if (symlinkat(target, place.at(), place.c_str()) < 0) return ErrnoError("cannot make the link");
    return SetOwnerByName(place, entry);
  }

  Status MakeNode(const std::string& path, archive_entry* entry) {
    CUBE_ASSIGN(Tree::Place place, MakeRoom(path));
    mode_t mode = archive_entry_filetype(entry) | archive_entry_perm(entry);
    if (mknodat(place.at(), place.c_str(), mode, archive_entry_rdev(entry)) < 0) {
      return ErrnoError("cannot make the device node");
    }
    CUBE_TRY(SetOwnerByName(place, entry));
    if (fchmodat(place.at(), place.c_str(), archive_entry_perm(entry), 0) < 0) {
      return ErrnoError("chmod");
    }
    return OkStatus();
  }

  Status Take(uint64_t bytes) {
    if (bytes > budget_->bytes) {
      return Errorf("has %llu bytes, of what may be unpacked %llu are left",
                    static_cast<unsigned long long>(bytes),
                    static_cast<unsigned long long>(budget_->bytes));
    }
    budget_->bytes -= bytes;
    return OkStatus();
  }

  using Times = std::pair<timespec, timespec>;

  static Times TimesOf(archive_entry* entry) {
    timespec time = {archive_entry_mtime(entry), archive_entry_mtime_nsec(entry)};
    return {time, time};
  }

  static void SetTimes(int fd, const Times& times) {
    const timespec both[2] = {times.first, times.second};
    // A time that the file system does not have is no reason to refuse an image.
    (void)futimens(fd, both);
  }

  static Status SetOwnerByName(const Tree::Place& place, archive_entry* entry) {
    if (fchownat(place.at(), place.c_str(), static_cast<uid_t>(archive_entry_uid(entry)),
                 static_cast<gid_t>(archive_entry_gid(entry)), AT_SYMLINK_NOFOLLOW) < 0) {
      return ErrnoError("cannot give it to its owner");
    }
    Times times = TimesOf(entry);
    const timespec both[2] = {times.first, times.second};
    (void)utimensat(place.at(), place.c_str(), both, AT_SYMLINK_NOFOLLOW);
    return OkStatus();
  }

  // In this order: a change of owner takes away set-user-ID bits and capabilities.
  static Status SetOwnerAndMode(int fd, archive_entry* entry) {
    if (fchown(fd, static_cast<uid_t>(archive_entry_uid(entry)),
               static_cast<gid_t>(archive_entry_gid(entry))) < 0) {
      return ErrnoError("cannot give it to its owner");
    }
    if (fchmod(fd, archive_entry_perm(entry)) < 0) return ErrnoError("chmod");
    const char* name = nullptr;
    const void* value = nullptr;
    size_t size = 0;
    archive_entry_xattr_reset(entry);
    while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
      // Others are about the machine that they come from: overlays, labels.
      bool wanted = name != nullptr && (std::string_view(name).starts_with("user.") ||
                                        std::string_view(name) == "security.capability");
      if (!wanted) continue;
      if (size > UnpackBudget::kMaxAttribute) {
        return Errorf("has an attribute of %zu bytes, at most %llu are possible", size,
                      static_cast<unsigned long long>(UnpackBudget::kMaxAttribute));
      }
      if (fsetxattr(fd, name, value, size, 0) < 0) {
        return ErrnoError("cannot set its attribute %.100s", name);
      }
    }
    return OkStatus();
  }

  Reader reader_;
  const std::string& what_;
  ArchiveKind kind_;
  const Tree& tree_;
  UnpackBudget* budget_;
  std::unordered_set<std::string> own_;  // what this layer has made, and the folders above
  std::vector<std::pair<std::string, Times>> folders_;
};

}  // namespace

Status UnpackArchive(int fd, const std::string& what, ArchiveKind kind, const Tree& tree,
                     UnpackBudget* budget) {
  CUBE_ASSIGN(Reader reader, OpenArchive(fd, what, false));
  return LayerUnpacker(std::move(reader), what, kind, tree, budget).Run();
}

Result<std::string> UncompressedSha256(int fd, const std::string& what, uint64_t max_bytes) {
  CUBE_ASSIGN(Reader reader, OpenArchive(fd, what, true));
  archive_entry* entry = nullptr;
  if (archive_read_next_header(reader.get(), &entry) != ARCHIVE_OK) {
    return ArchiveError(reader.get(), what);
  }
  Sha256 sum;
  std::vector<uint8_t> buffer(kBlock);
  for (uint64_t done = 0;;) {
    la_ssize_t n = archive_read_data(reader.get(), buffer.data(), buffer.size());
    if (n < 0) return ArchiveError(reader.get(), what);
    if (n == 0) return sum.Finish();
    done += static_cast<uint64_t>(n);
    if (done > max_bytes) {
      return Errorf("%s: unpacks to more than %llu bytes", what.c_str(),
                    static_cast<unsigned long long>(max_bytes));
    }
    sum.Add(std::span<const uint8_t>(buffer.data(), static_cast<size_t>(n)));
  }
}

}  // namespace cube::templates
