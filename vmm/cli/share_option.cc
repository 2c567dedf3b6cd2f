#include "vmm/cli/share_option.h"

#include <sys/resource.h>

#include <set>
#include <string_view>

#include "base/control_abi.h"
#include "vmm/cli/option_words.h"

namespace cube::vmm {
namespace {

using devices::fs::ShareConfig;

// Those of a VM without shares, and room for its other devices.
constexpr size_t kOwnDescriptors = 512;

bool SetOption(std::string_view option, ShareConfig* share) {
  if (option == "ro") {
    share->read_only = true;
    return true;
  }
  size_t equals = option.find('=');
  if (equals == option.npos) return false;
  std::string_view name = option.substr(0, equals);
  // The greatest number means none in system calls.
  auto number = WholeNumber(option.substr(equals + 1), UINT32_MAX - 1);
  if (!number) return false;
  auto id = static_cast<uint32_t>(*number);
  if (name == "uid") {
    share->host_uid = id;
  } else if (name == "gid") {
    share->host_gid = id;
  } else if (name == "guest-uid") {
    share->guest_uid = id;
  } else if (name == "guest-gid") {
    share->guest_gid = id;
  } else {
    return false;
  }
  return true;
}

}  // namespace

Result<ShareConfig> ParseShare(const std::string& value) {
  const Error wrong =
      Errorf("--share %s: HOSTDIR:TAG[:ro][,uid=N,gid=N,guest-uid=N,guest-gid=N] is expected",
             value.c_str());
  ShareConfig share;
  std::vector<std::string_view> parts = SplitWords(value, ':');
  if (parts.size() < 2 || parts.size() > 3) return wrong;
  share.directory = parts[0];
  share.tag = parts[1];
  if (share.directory.empty() || share.tag.empty()) return wrong;
  if (parts.size() == 3) {
    for (std::string_view option : SplitWords(parts[2], ',')) {
      if (!SetOption(option, &share)) return wrong;
    }
  }
  Status tag = devices::fs::FsDevice::CheckTag(share.tag);
  if (!tag.ok()) return Error(tag.error()).Wrap("--share " + value);
  return share;
}

Result<std::vector<ShareConfig>> ParseShares(const std::vector<std::string>& values) {
  std::vector<ShareConfig> shares;
  std::set<std::string> tags;
  for (const std::string& value : values) {
    CUBE_ASSIGN(ShareConfig share, ParseShare(value));
    if (!tags.insert(share.tag).second) {
      return Errorf("--share %s: there is another share with tag %s", value.c_str(),
                    share.tag.c_str());
    }
    shares.push_back(std::move(share));
  }
  return shares;
}

std::string ShareWords(const std::vector<ShareConfig>& shares) {
  std::string words;
  for (const ShareConfig& share : shares) {
    if (!words.empty()) words += ' ';
    words += "cube.share=" + share.tag + (share.read_only ? ":ro" : "");
  }
  return words;
}

std::vector<ShareConfig> SpareShares(size_t count) {
  std::vector<ShareConfig> shares;
  for (size_t i = 0; i < count; ++i) {
    ShareConfig share;
    share.tag = VolumeTag(i);
    shares.push_back(std::move(share));
  }
  return shares;
}

std::string VolumeTag(size_t number) { return abi::kVolumeTag + std::to_string(number); }

Status RaiseDescriptorLimit(const std::vector<ShareConfig>& shares) {
  if (shares.empty()) return OkStatus();
  rlim_t needed = kOwnDescriptors;
  for (const ShareConfig& share : shares) {
    // One without a directory has to do with what there is.
    if (!share.directory.empty()) needed += share.limits.descriptors();
  }
  if (needed == kOwnDescriptors) return OkStatus();
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return ErrnoError("getrlimit");
  if (limit.rlim_cur >= needed) return OkStatus();
  if (limit.rlim_max < needed) {
    return Errorf("%zu shares may need %llu descriptors, the limit of open files is %llu",
                  shares.size(), static_cast<unsigned long long>(needed),
                  static_cast<unsigned long long>(limit.rlim_max));
  }
  limit.rlim_cur = needed;
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0) return ErrnoError("setrlimit");
  return OkStatus();
}

}  // namespace cube::vmm
