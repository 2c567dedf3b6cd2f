#include "pool/volume_mounts.h"

#include <algorithm>
#include <utility>

#include "base/control_abi.h"
#include "base/json_writer.h"
#include "snapshot/manifest.h"

namespace cube::pool {
namespace {

constexpr size_t kMaxPath = 1024;
// What the guest's kernel has there its programs and the agent need.
constexpr const char* kKernelFolders[] = {"/dev", "/proc", "/sys"};

bool IsBeneath(const std::string& path, const std::string& folder) {
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

// With one slash before each name.
Outcome<std::string> NormalPath(const std::string& path) {
  const std::string shown = path.substr(0, 200);
  if (path.size() > kMaxPath || path.find('\0') != std::string::npos || !IsUtf8(path)) {
    return Refuse(Fault::kInvalid, "a volume's path is not one of at most %zu bytes of UTF-8",
                  kMaxPath);
  }
  if (!path.starts_with('/')) {
    return Refuse(Fault::kInvalid, "a volume's path is not absolute: \"%s\"", shown.c_str());
  }
  std::string normal;
  for (size_t at = 1; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string name = path.substr(at, end - at);
    at = end + 1;
    if (name.empty() || name == ".") continue;
    if (name == "..") {
      return Refuse(Fault::kInvalid, "a volume's path has \"..\": \"%s\"", shown.c_str());
    }
    normal += "/" + name;
  }
  if (normal.empty()) return Refuse(Fault::kInvalid, "a volume cannot be mounted at \"/\"");
  for (const char* folder : kKernelFolders) {
    if (!IsBeneath(normal, folder)) continue;
    return Refuse(Fault::kInvalid, "a volume cannot be mounted at \"%s\": %s is the kernel's",
                  shown.c_str(), folder);
  }
  return normal;
}

}  // namespace

Outcome<std::vector<VolumeMount>> CheckVolumeMounts(std::vector<VolumeMount> asked) {
  for (VolumeMount& mount : asked) {
    POOL_ASSIGN(mount.path, NormalPath(mount.path));
  }
  std::sort(asked.begin(), asked.end(),
            [](const VolumeMount& a, const VolumeMount& b) { return a.path < b.path; });
  auto twice = std::adjacent_find(
      asked.begin(), asked.end(),
      [](const VolumeMount& a, const VolumeMount& b) { return a.path == b.path; });
  if (twice == asked.end()) return asked;
  return Refuse(Fault::kInvalid, "two volumes at one path: \"%.200s\"", twice->path.c_str());
}

Outcome<std::vector<VolumeMount>> AddVolumeMounts(std::vector<VolumeMount> saved,
                                                  const std::vector<VolumeMount>& asked) {
  for (const VolumeMount& mount : asked) {
    auto same = std::find_if(saved.begin(), saved.end(),
                             [&](const VolumeMount& one) { return one.path == mount.path; });
    if (same == saved.end()) {
      saved.push_back(mount);
    } else if (same->volume != mount.volume) {
      return Refuse(Fault::kInvalid, "the snapshot has another volume, \"%s\", at \"%.200s\"",
                    same->name.c_str(), mount.path.c_str());
    }
  }
  return saved;
}

Outcome<size_t> VolumeDevicesOf(const std::string& folder) {
  POOL_ASSIGN(snapshot::Manifest manifest, snapshot::Manifest::Load(folder));
  return static_cast<size_t>(
      std::count_if(manifest.hardware.shares.begin(), manifest.hardware.shares.end(),
                    [](const auto& share) { return share.directory.empty(); }));
}

Outcome<Done> CheckVolumeCount(const std::vector<VolumeMount>& mounts, size_t devices,
                               const std::string& what) {
  const size_t most = std::min<size_t>(devices, abi::kMaxVolumes);
  if (mounts.size() <= most) return Done();
  if (devices == 0) {
    return Refuse(Fault::kInvalid,
                  "%s has no devices for volumes: it was built with --volumes 0, or before there "
                  "were any, and has to be built anew",
                  what.c_str());
  }
  return Refuse(Fault::kInvalid, "%zu volumes, %s has devices for %zu (template build --volumes)",
                mounts.size(), what.c_str(), most);
}

}  // namespace cube::pool
