#include "guestkernel/agent/envd/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <vector>

#include "base/unique_fd.h"
#include "guestkernel/agent/envd/entry.h"

namespace cube::agent::envd {

using connect::Code;
using connect::FromErrno;
using connect::Outcome;
using connect::RpcError;

namespace {

// Each level takes a descriptor and some stack. What lies deeper is lifted to the top.
constexpr int kMaxDepth = 64;

class TreeRemover {
 public:
  explicit TreeRemover(UniqueFd top) : top_(std::move(top)) {}

  // Removes all that is in the top directory. False and errno if something cannot be.
  bool RemoveContent() {
    do {
      lifted_ = false;
      UniqueFd again(openat(top_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (!Empty(std::move(again), 0)) return false;
    } while (lifted_);
    return true;
  }

 private:
  bool Empty(UniqueFd folder, int depth) {
    std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(folder.get()), closedir);
    if (entries == nullptr) return false;
    const int fd = folder.Release();  // closedir() closes it
    while (const dirent* entry = readdir(entries.get())) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      if (entry->d_type != DT_DIR) {
        if (unlinkat(fd, name.c_str(), 0) == 0 || errno == ENOENT) continue;
        if (errno != EISDIR) return false;
      }
      if (!RemoveFolder(fd, name, depth)) return false;
    }
    return true;
  }

  bool RemoveFolder(int parent, const std::string& name, int depth) {
    // Most directories at the end of a tree are found empty.
    if (unlinkat(parent, name.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) return true;
    if (errno != ENOTEMPTY && errno != EEXIST) return false;
    if (depth == kMaxDepth) {
      lifted_ = true;
      const std::string place = Format(".removed-%d-%llu", getpid(), ++count_);
      return renameat(parent, name.c_str(), top_.get(), place.c_str()) == 0;
    }
    UniqueFd folder(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!folder.valid() || !Empty(std::move(folder), depth + 1)) return false;
    return unlinkat(parent, name.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT;
  }

  UniqueFd top_;
  bool lifted_ = false;
  unsigned long long count_ = 0;
};

}  // namespace

Outcome<bool> MakeFolders(const std::string& path, const User& user) {
  // The ones to be made, the last first.
  std::vector<std::string> missing;
  std::string folder = path;
  struct stat info;
  while (stat(folder.c_str(), &info) < 0) {
    if (errno == ENOTDIR) {
      return RpcError{Code::kInvalidArgument, "a part of '" + path + "' is not a directory"};
    }
    if (errno != ENOENT) return FromErrno(errno, "cannot look at '" + folder + "'");
    missing.push_back(folder);
    folder = FolderOf(folder);
  }
  if (!S_ISDIR(info.st_mode)) {
    return RpcError{Code::kInvalidArgument, "'" + folder + "' is not a directory"};
  }
  for (auto each = missing.rbegin(); each != missing.rend(); ++each) {
    if (mkdir(each->c_str(), 0755) < 0) {
      if (errno == EEXIST && stat(each->c_str(), &info) == 0 && S_ISDIR(info.st_mode)) continue;
      return FromErrno(errno, "cannot make the directory '" + *each + "'");
    }
    const Credentials& owner = user.credentials;
    if (owner.uid != geteuid() && lchown(each->c_str(), owner.uid, owner.gid) < 0) {
      return FromErrno(errno, "cannot give '" + *each + "' to its user");
    }
  }
  return !missing.empty();
}

Outcome<bool> RemoveTree(const std::string& path) {
  if (path == "/") return RpcError{Code::kInvalidArgument, "the root cannot be removed"};
  if (unlink(path.c_str()) == 0 || errno == ENOENT || errno == ENOTDIR) return true;
  const std::string failed = "cannot remove '" + path + "'";
  // POSIX has unlink(2) of a directory fail with EPERM, Linux with EISDIR.
  if (errno != EISDIR && errno != EPERM) return FromErrno(errno, failed);
  if (rmdir(path.c_str()) == 0 || errno == ENOENT) return true;
  if (errno != ENOTEMPTY && errno != EEXIST) return FromErrno(errno, failed);
  UniqueFd top(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!top.valid()) return FromErrno(errno, failed);
  if (!TreeRemover(std::move(top)).RemoveContent()) return FromErrno(errno, failed);
  if (rmdir(path.c_str()) < 0 && errno != ENOENT) return FromErrno(errno, failed);
  return true;
}

}  // namespace cube::agent::envd
