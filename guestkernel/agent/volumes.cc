#include "guestkernel/agent/volumes.h"

#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/control_abi.h"
#include "base/result.h"
#include "guestkernel/agent/log.h"

namespace cube::agent {
namespace {

// 0 or an errno value.
int MakeFolders(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    if (mkdir(path.substr(0, slash).c_str(), 0755) < 0 && errno != EEXIST) return errno;
  }
  return mkdir(path.c_str(), 0755) < 0 && errno != EEXIST ? errno : 0;
}

int MountOne(size_t number, const std::string& path) {
  if (!path.starts_with('/')) return EINVAL;
  if (int error = MakeFolders(path)) return error;
  const std::string tag = abi::kVolumeTag + std::to_string(number);
  // What its files say of privileges and devices others have written.
  if (mount(tag.c_str(), path.c_str(), "virtiofs", MS_NOSUID | MS_NODEV, nullptr) < 0) return errno;
  // A mount succeeds before the other side has said a word.
  struct stat info;
  if (stat(path.c_str(), &info) == 0) return 0;
  int error = errno;
  umount2(path.c_str(), MNT_DETACH);
  return error;
}

}  // namespace

uint32_t Volumes::Mount(const std::vector<std::string>& paths) {
  for (size_t i = 0; i < paths.size(); ++i) {
    const bool known = i < mounted_.size();
    if (known && mounted_[i] == paths[i]) continue;
    errno = known ? EBUSY : MountOne(i, paths[i]);
    if (errno == 0) {
      mounted_.push_back(paths[i]);
      continue;
    }
    const int error = errno;
    Log(ErrnoError("cannot mount volume %zu on %s", i, paths[i].c_str()).message());
    return abi::MountFailure(static_cast<uint32_t>(i), static_cast<uint32_t>(error));
  }
  return 0;
}

}  // namespace cube::agent
