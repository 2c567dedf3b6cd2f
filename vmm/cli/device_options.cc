#include "vmm/cli/device_options.h"

#include <sys/resource.h>

#include <string_view>

#include "devices/balloon/balloon.h"
#include "devices/fs/fs.h"
#include "devices/rng/rng.h"
#include "devices/vsock/vsock.h"
#include "vmm/cli/disk_option.h"
#include "vmm/cli/net_option.h"
#include "vmm/cli/option_words.h"
#include "vmm/cli/share_option.h"
#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

Result<std::unique_ptr<::cube::devices::virtio::Device>> MakeBalloon(const DeviceOptions& options) {
  if (options.balloon_mib > kMaxMemory / kMiB) {
    return Errorf("--balloon: %llu MiB are more than a guest can have, %llu",
                  static_cast<unsigned long long>(options.balloon_mib),
                  static_cast<unsigned long long>(kMaxMemory / kMiB));
  }
  return std::unique_ptr<::cube::devices::virtio::Device>(::cube::devices::Balloon::Create(
      static_cast<uint32_t>(options.balloon_mib * kMiB / kPageSize)));
}

Result<std::vector<NetOption>> ParseNets(const DeviceOptions& options) {
  std::vector<NetOption> nets;
  for (const std::string& text : options.net) {
    CUBE_ASSIGN(NetOption option, NetOption::Parse(text));
    nets.push_back(std::move(option));
  }
  return nets;
}

Status AddShares(const DeviceOptions& options, EventLoop* loop, std::vector<NamedDevice>* made) {
  CUBE_ASSIGN(auto shares, ParseShares(options.shares));
  CUBE_TRY(RaiseDescriptorLimit(shares));
  for (const ::cube::devices::fs::ShareConfig& share : shares) {
    auto device = ::cube::devices::fs::FsDevice::Create(share, loop);
    if (!device.ok()) return Error(device.error()).Wrap("--share");
    made->push_back({"fs-" + share.tag, std::move(*device)});
  }
  return OkStatus();
}

// Every connection is a descriptor, beside those that the limit was meant for.
void AllowDescriptors(rlim_t more) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max - limit.rlim_cur < more ? limit.rlim_max : limit.rlim_cur + more;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

// PATH[,cid=N]
Result<::cube::devices::VsockConfig> ParseVsock(std::string_view text) {
  ::cube::devices::VsockConfig config;
  std::vector<std::string_view> words = SplitWords(text, ',');
  config.path = words[0];
  for (size_t i = 1; i < words.size(); ++i) {
    if (!words[i].starts_with("cid=")) {
      return Errorf("unknown option %s", std::string(words[i]).c_str());
    }
    auto number = WholeNumber(words[i].substr(4), UINT64_MAX);
    if (!number) return Errorf("%s is not a number", std::string(words[i]).c_str());
    config.guest_cid = *number;
  }
  return config;
}

Result<std::unique_ptr<::cube::devices::virtio::Device>> MakeVsock(const std::string& text,
                                                                   EventLoop* loop) {
  CUBE_ASSIGN(::cube::devices::VsockConfig config, ParseVsock(text));
  CUBE_ASSIGN(auto vsock, ::cube::devices::Vsock::Create(std::move(config), loop));
  AllowDescriptors(::cube::devices::Vsock::kMaxConnections);
  return std::unique_ptr<::cube::devices::virtio::Device>(std::move(vsock));
}

}  // namespace

Result<std::string> DeviceWords(const DeviceOptions& options) {
  CUBE_ASSIGN(auto shares, ParseShares(options.shares));
  CUBE_ASSIGN(std::vector<NetOption> nets, ParseNets(options));
  std::string words = ShareWords(shares);
  std::string net = NetKernelArgument(nets);
  if (!words.empty() && !net.empty()) words += ' ';
  return words + net;
}

Result<std::vector<NamedDevice>> MakeDevices(const DeviceOptions& options, EventLoop* loop) {
  std::vector<NamedDevice> made;
  // First, in their order: the guest names them so.
  for (const std::string& disk : options.disks) {
    if (made.size() == kVirtioMaxDevices) {
      return Errorf("--disk %s: more than %u virtio devices", disk.c_str(), kVirtioMaxDevices);
    }
    std::string name = std::string("vd") + static_cast<char>('a' + made.size());
    CUBE_ASSIGN(auto device, MakeDisk(disk, name, loop));
    made.push_back({name, std::move(device)});
  }
  CUBE_ASSIGN(std::unique_ptr<::cube::devices::virtio::Device> balloon, MakeBalloon(options));
  made.push_back({"balloon", std::move(balloon)});
  made.push_back({"rng", ::cube::devices::Rng::Create()});
  CUBE_TRY(AddShares(options, loop, &made));
  CUBE_ASSIGN(std::vector<NetOption> nets, ParseNets(options));
  for (size_t i = 0; i < nets.size(); ++i) {
    CUBE_ASSIGN(std::unique_ptr<::cube::devices::Net> net, MakeNet(nets[i], loop));
    made.push_back({Format("eth%zu", i), std::move(net)});
  }
  if (options.vsock) {
    auto vsock = MakeVsock(*options.vsock, loop);
    if (!vsock.ok()) return Error(vsock.error()).Wrap("--vsock");
    made.push_back({"vsock", std::move(*vsock)});
  }
  return made;
}

}  // namespace cube::vmm
