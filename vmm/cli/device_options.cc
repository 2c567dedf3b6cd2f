#include "vmm/cli/device_options.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <string_view>

#include "devices/balloon/balloon.h"
#include "devices/fs/fs.h"
#include "devices/net/unplugged.h"
#include "devices/rng/rng.h"
#include "devices/vsock/vsock.h"
#include "vmm/cli/disk_option.h"
#include "vmm/cli/net_option.h"
#include "vmm/cli/option_words.h"
#include "vmm/cli/share_option.h"
#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

Result<std::vector<NetOption>> ParseNets(const DeviceOptions& options) {
  std::vector<NetOption> nets;
  for (const std::string& text : options.net) {
    CUBE_ASSIGN(NetOption option, NetOption::Parse(text));
    nets.push_back(std::move(option));
  }
  return nets;
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

Result<uint32_t> BalloonPages(const DeviceOptions& options) {
  if (options.balloon_mib > kMaxMemory / kMiB) {
    return Errorf("--balloon: %llu MiB are more than a guest can have, %llu",
                  static_cast<unsigned long long>(options.balloon_mib),
                  static_cast<unsigned long long>(kMaxMemory / kMiB));
  }
  return static_cast<uint32_t>(options.balloon_mib * kMiB / kPageSize);
}

// Whether the next guest finds the disk as this one did.
bool KeepsNothing(const DiskOption& disk) {
  bool written = disk.files.layers.empty() || !disk.files.overlay.empty();
  return disk.files.read_only || disk.temporary || !written;
}

// Balloon, random numbers and shares: what needs nothing but the hardware's description.
Status AddCommon(const snapshot::Hardware& hardware, EventLoop* loop,
                 std::vector<NamedDevice>* made) {
  made->push_back({"balloon", ::cube::devices::Balloon::Create(hardware.balloon_pages)});
  made->push_back({"rng", ::cube::devices::Rng::Create()});
  CUBE_TRY(RaiseDescriptorLimit(hardware.shares));
  for (::cube::devices::fs::ShareConfig share : hardware.shares) {
    if (share.directory.empty()) share.limits = ::cube::devices::fs::kVolumeLimits;
    auto device = ::cube::devices::fs::FsDevice::Create(share, loop);
    if (!device.ok()) return Error(device.error()).Wrap("--share");
    made->push_back({"fs-" + share.tag, std::move(*device)});
  }
  return OkStatus();
}

Status AddVsock(::cube::devices::VsockConfig config, EventLoop* loop, MadeDevices* made) {
  made->vsock = config.path;
  made->hardware.vsock_cid = config.guest_cid;
  auto vsock = ::cube::devices::Vsock::Create(std::move(config), loop);
  if (!vsock.ok()) return Error(vsock.error()).Wrap("--vsock");
  AllowDescriptors(::cube::devices::Vsock::kMaxConnections);
  made->devices.push_back({"vsock", std::move(*vsock)});
  return OkStatus();
}

Result<::cube::devices::VsockConfig> VsockOption(const std::string& text) {
  auto config = ParseVsock(text);
  if (!config.ok()) return Error(config.error()).Wrap("--vsock");
  return config;
}

// What an option says of a clone's NIC, its place on the host above all.
Status PlugIn(const NetOption& option, size_t number, ::cube::devices::NetOptions* nic) {
  if (option.device.mtu != 0 && option.device.mtu != nic->mtu) {
    return Errorf("--net: eth%zu has an MTU of %u (0 is none) that cannot become %u", number,
                  nic->mtu, option.device.mtu);
  }
  nic->receive = option.device.receive;
  nic->transmit = option.device.transmit;
  return OkStatus();
}

Status AddNics(const DeviceOptions& options, EventLoop* loop, MadeDevices* made) {
  const std::vector<std::string>& texts = options.net;
  std::vector<::cube::devices::NetOptions>& nics = made->hardware.nics;
  if (texts.size() > nics.size()) {
    return Errorf("--net %s: the guest has only %zu NICs", texts[nics.size()].c_str(), nics.size());
  }
  for (size_t i = 0; i < nics.size(); ++i) {
    std::unique_ptr<::cube::devices::Net> net;
    if (i < texts.size()) {
      CUBE_ASSIGN(NetOption option, NetOption::Parse(texts[i]));
      CUBE_TRY(PlugIn(option, i, &nics[i]));
      option.device = nics[i];
      CUBE_ASSIGN(net, MakeNet(option, loop));
    } else {
      auto unplugged = std::make_unique<::cube::devices::net::Unplugged>(options.net_later);
      CUBE_ASSIGN(net, ::cube::devices::Net::Create(std::move(unplugged), nics[i], loop));
    }
    made->devices.push_back({Format("eth%zu", i), std::move(net)});
  }
  return OkStatus();
}

// After those that the options name, as far as there is room for devices.
Status AddSpareShares(const DeviceOptions& options, snapshot::Hardware* hardware) {
  const size_t others = options.disks.size() + 2 + hardware->shares.size() + options.net.size() +
                        (options.vsock ? 1 : 0);
  const size_t room = others < kVirtioMaxDevices ? kVirtioMaxDevices - others : 0;
  for (auto& spare : SpareShares(std::min<size_t>(options.volumes, room))) {
    for (const auto& share : hardware->shares) {
      if (share.tag != spare.tag) continue;
      return Errorf("--share %s:%s: the tag is that of a volume's share (--volumes)",
                    share.directory.c_str(), share.tag.c_str());
    }
    hardware->shares.push_back(std::move(spare));
  }
  return OkStatus();
}

// The directories given for this clone.
Status PlaceShares(const std::vector<std::string>& texts, snapshot::Hardware* hardware) {
  CUBE_ASSIGN(auto shares, ParseShares(texts));
  for (size_t i = 0; i < shares.size(); ++i) {
    auto same = std::ranges::find_if(hardware->shares,
                                     [&](const auto& share) { return share.tag == shares[i].tag; });
    if (same == hardware->shares.end()) {
      return Errorf("--share %s: the guest has no share with tag %s", texts[i].c_str(),
                    shares[i].tag.c_str());
    }
    if (same->read_only && !shares[i].read_only) {
      return Errorf("--share %s: the guest has mounted it read-only", texts[i].c_str());
    }
    *same = std::move(shares[i]);
  }
  return OkStatus();
}

}  // namespace

std::string FileKey(const std::string& path) {
  struct stat info;
  if (path.empty() || stat(path.c_str(), &info) < 0) return path + " -\n";
  return Format("%llu %llu %lld %lld.%09ld\n", static_cast<unsigned long long>(info.st_dev),
                static_cast<unsigned long long>(info.st_ino), static_cast<long long>(info.st_size),
                static_cast<long long>(info.st_mtim.tv_sec), info.st_mtim.tv_nsec);
}

Result<std::string> DeviceWords(const DeviceOptions& options) {
  CUBE_ASSIGN(auto shares, ParseShares(options.shares));
  CUBE_ASSIGN(std::vector<NetOption> nets, ParseNets(options));
  std::string words = ShareWords(shares);
  std::string net = NetKernelArgument(nets);
  if (!words.empty() && !net.empty()) words += ' ';
  return words + net;
}

std::optional<std::string> TemplateKey(const DeviceOptions& options) {
  std::string key = Format("%llu\n", static_cast<unsigned long long>(options.balloon_mib));
  for (const std::string& text : options.disks) {
    auto disk = ParseDiskOption(text);
    if (!disk.ok() || !KeepsNothing(*disk)) return std::nullopt;
    key += Format("disk %d %s\n", disk->files.read_only ? 1 : 0, disk->device.id.c_str());
    key += FileKey(disk->files.base);
    for (const std::string& layer : disk->files.layers) key += "layer " + FileKey(layer);
  }
  auto nets = ParseNets(options);
  if (!nets.ok()) return std::nullopt;
  for (const NetOption& net : *nets) {
    // Two clones on one network must not have one address by chance.
    if (net.own_mac && net.address.empty()) return std::nullopt;
    key += Format("net %u %d ", net.device.mtu, net.device.offloads ? 1 : 0);
    for (uint8_t byte : net.device.mac) key += net.own_mac ? "" : Format("%02x", byte);
    key += "\n";
  }
  auto shares = ParseShares(options.shares);
  if (!shares.ok()) return std::nullopt;
  for (const ::cube::devices::fs::ShareConfig& share : *shares) {
    key += Format("share %s %d %u %u\n", share.tag.c_str(), share.read_only ? 1 : 0,
                  share.guest_uid, share.guest_gid);
  }
  if (options.vsock) {
    auto vsock = ParseVsock(*options.vsock);
    if (!vsock.ok()) return std::nullopt;
    key += Format("vsock %llu\n", static_cast<unsigned long long>(vsock->guest_cid));
  }
  key += Format("volumes %u\n", options.volumes);
  auto words = DeviceWords(options);
  return words.ok() ? std::optional(key + *words + "\n") : std::nullopt;
}

Result<MadeDevices> MakeDevices(const DeviceOptions& options, const DevicePlace& place) {
  MadeDevices made;
  // First, in their order: the guest names them so.
  for (const std::string& disk : options.disks) {
    if (made.devices.size() == kVirtioMaxDevices) {
      return Errorf("--disk %s: more than %u virtio devices", disk.c_str(), kVirtioMaxDevices);
    }
    std::string name = std::string("vd") + static_cast<char>('a' + made.devices.size());
    CUBE_ASSIGN(MadeDisk one, MakeDisk(disk, name, place.scratch, place.loop));
    made.devices.push_back({name, std::move(one.device)});
    made.hardware.disks.push_back(std::move(one.hardware));
  }
  CUBE_ASSIGN(made.hardware.balloon_pages, BalloonPages(options));
  CUBE_ASSIGN(made.hardware.shares, ParseShares(options.shares));
  CUBE_TRY(AddSpareShares(options, &made.hardware));
  CUBE_TRY(AddCommon(made.hardware, place.loop, &made.devices));
  CUBE_ASSIGN(std::vector<NetOption> nets, ParseNets(options));
  for (size_t i = 0; i < nets.size(); ++i) {
    CUBE_ASSIGN(std::unique_ptr<::cube::devices::Net> net, MakeNet(nets[i], place.loop));
    made.devices.push_back({Format("eth%zu", i), std::move(net)});
    made.hardware.nics.push_back(nets[i].device);
  }
  if (options.vsock) {
    CUBE_ASSIGN(::cube::devices::VsockConfig config, VsockOption(*options.vsock));
    CUBE_TRY(AddVsock(std::move(config), place.loop, &made));
  }
  return made;
}

Result<MadeDevices> MakeCloneDevices(const snapshot::Hardware& hardware,
                                     const std::vector<::cube::devices::blk::DiskStack>& disks,
                                     const DeviceOptions& options, const DevicePlace& place) {
  using ::cube::devices::blk::Disk;
  using ::cube::devices::blk::OverlayFile;
  MadeDevices made;
  made.hardware = hardware;
  for (size_t i = 0; i < disks.size(); ++i) {
    snapshot::DiskHardware& known = made.hardware.disks[i];
    if (i < options.disks.size()) {
      CUBE_ASSIGN(DiskOption option, ParseDiskOption(options.disks[i]));
      known.options.limits = option.device.limits;
      known.options.engine = option.device.engine;
    }
    std::optional<Disk> disk;
    if (known.read_only) {
      CUBE_ASSIGN(disk, Disk::Over(disks[i]));
    } else {
      CUBE_ASSIGN(OverlayFile overlay, OverlayFile::CreateTemporary(place.scratch, disks[i].size));
      CUBE_ASSIGN(disk, Disk::Over(disks[i], std::move(overlay)));
    }
    CUBE_ASSIGN(auto device,
                ::cube::devices::Blk::Create(std::move(*disk), known.options, place.loop));
    made.devices.push_back({known.name, std::move(device)});
  }
  CUBE_TRY(PlaceShares(options.shares, &made.hardware));
  CUBE_TRY(AddCommon(made.hardware, place.loop, &made.devices));
  CUBE_TRY(AddNics(options, place.loop, &made));
  if (!hardware.vsock_cid) {
    if (options.vsock) return Errorf("--vsock %s: the guest has no vsock", options.vsock->c_str());
    return made;
  }
  ::cube::devices::VsockConfig config;
  config.path = place.vsock;
  if (options.vsock) {
    CUBE_ASSIGN(config, VsockOption(*options.vsock));
  }
  config.guest_cid = *hardware.vsock_cid;
  CUBE_TRY(AddVsock(std::move(config), place.loop, &made));
  return made;
}

}  // namespace cube::vmm
