#include "snapshot/hardware.h"

#include <sys/stat.h>

#include <climits>
#include <cstdio>
#include <cstdlib>

namespace cube::snapshot {
namespace {

using ::cube::devices::BlkOptions;
using ::cube::devices::MacAddress;
using ::cube::devices::NetOptions;
using ::cube::devices::RateLimits;
using ::cube::devices::blk::IoEngine;
using ::cube::devices::fs::FsDevice;
using ::cube::devices::fs::ShareConfig;

constexpr uint64_t kNone = UINT64_MAX;  // for a number that is not given

Result<OutsideFile> Describe(int fd, const std::string& path) {
  struct stat info;
  if (fstat(fd, &info) < 0) return ErrnoError("%s", path.c_str());
  OutsideFile file;
  file.path = path;
  file.bytes = static_cast<uint64_t>(info.st_size);
  file.inode = info.st_ino;
  file.modified = static_cast<uint64_t>(info.st_mtim.tv_sec) * 1'000'000'000 +
                  static_cast<uint64_t>(info.st_mtim.tv_nsec);
  return file;
}

const char* EngineName(IoEngine::Kind kind) {
  switch (kind) {
    case IoEngine::Kind::kAuto:
      return "auto";
    case IoEngine::Kind::kUring:
      return "uring";
    case IoEngine::Kind::kThread:
      return "thread";
  }
  return "";
}

std::string MacText(const MacAddress& mac) {
  return Format("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

Result<MacAddress> ParseMac(const std::string& text) {
  unsigned byte[6];
  int end = 0;
  if (sscanf(text.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x%n", &byte[0], &byte[1], &byte[2], &byte[3],
             &byte[4], &byte[5], &end) != 6 ||
      text.size() != 17 || end != 17) {
    return Errorf("\"mac\" is not XX:XX:XX:XX:XX:XX");
  }
  MacAddress mac;
  for (size_t i = 0; i < 6; ++i) mac[i] = static_cast<uint8_t>(byte[i]);
  return mac;
}

void WriteLimits(JsonWriter* json, const char* name, const RateLimits& limits) {
  json->Key(name).BeginObject();
  json->Key("bps").Uint(limits.bytes_per_second).Key("ops").Uint(limits.operations_per_second);
  json->EndObject();
}

Result<RateLimits> ReadLimits(const JsonFields& fields, const char* name) {
  CUBE_ASSIGN(JsonFields of, fields.Object(name));
  RateLimits limits;
  CUBE_ASSIGN(limits.bytes_per_second, of.Number("bps"));
  CUBE_ASSIGN(limits.operations_per_second, of.Number("ops"));
  constexpr uint64_t kMax = ::cube::devices::TokenBucket::kMaxTokens;
  if (limits.bytes_per_second > kMax || limits.operations_per_second > kMax) {
    return Errorf("\"%s\" has a rate above %llu", name, static_cast<unsigned long long>(kMax));
  }
  return limits;
}

Result<DiskHardware> ReadDisk(const JsonFields& fields) {
  DiskHardware disk;
  CUBE_ASSIGN(disk.name, fields.String("name"));
  if (disk.name.size() != 3 || !disk.name.starts_with("vd") || disk.name[2] < 'a' ||
      disk.name[2] > 'z') {
    return Errorf("a disk is not named vda to vdz");
  }
  CUBE_ASSIGN(disk.options.id, fields.String("serial"));
  CUBE_ASSIGN(std::string engine, fields.String("engine"));
  for (auto kind : {IoEngine::Kind::kAuto, IoEngine::Kind::kUring, IoEngine::Kind::kThread}) {
    if (engine == EngineName(kind)) disk.options.engine = kind;
  }
  if (engine != EngineName(disk.options.engine)) {
    return Errorf("%s's \"engine\" is unknown", disk.name.c_str());
  }
  CUBE_ASSIGN(disk.options.limits, ReadLimits(fields, "limits"));
  CUBE_ASSIGN(disk.read_only, fields.Bool("read_only"));
  CUBE_ASSIGN(std::vector<JsonFields> files, fields.Objects("files", 64));
  for (const JsonFields& each : files) {
    OutsideFile file;
    CUBE_ASSIGN(file.path, each.String("path"));
    CUBE_ASSIGN(file.bytes, each.Number("bytes"));
    CUBE_ASSIGN(file.inode, each.Number("inode"));
    CUBE_ASSIGN(file.modified, each.Number("modified"));
    if (!file.path.starts_with('/') || file.path.find('\0') != std::string::npos) {
      return Errorf("%s has a file without an absolute path", disk.name.c_str());
    }
    disk.files.push_back(std::move(file));
  }
  if (disk.files.empty()) return Errorf("%s has no image", disk.name.c_str());
  CUBE_ASSIGN(disk.layer_blocks, fields.Number("layer_blocks"));
  CUBE_ASSIGN(disk.layer_xxh3, fields.String("layer_xxh3"));
  bool hexadecimal = disk.layer_xxh3.size() == 32 &&
                     disk.layer_xxh3.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (disk.layer_blocks == 0 ? !disk.layer_xxh3.empty() : !hexadecimal) {
    return Errorf("%s has a layer of %llu blocks and the checksum \"%s\"", disk.name.c_str(),
                  static_cast<unsigned long long>(disk.layer_blocks), disk.layer_xxh3.c_str());
  }
  return disk;
}

void WriteDisk(JsonWriter* json, const DiskHardware& disk) {
  json->BeginObject();
  json->Key("name").String(disk.name).Key("serial").String(disk.options.id);
  json->Key("engine").String(EngineName(disk.options.engine));
  WriteLimits(json, "limits", disk.options.limits);
  json->Key("read_only").Bool(disk.read_only);
  json->Key("files").BeginArray();
  for (const OutsideFile& file : disk.files) {
    json->BeginObject().Key("path").String(file.path).Key("bytes").Uint(file.bytes);
    json->Key("inode").Uint(file.inode).Key("modified").Uint(file.modified).EndObject();
  }
  json->EndArray();
  json->Key("layer_blocks").Uint(disk.layer_blocks).Key("layer_xxh3").String(disk.layer_xxh3);
  json->EndObject();
}

Result<ShareConfig> ReadShare(const JsonFields& fields) {
  ShareConfig share;
  CUBE_ASSIGN(share.directory, fields.String("directory"));
  CUBE_ASSIGN(share.tag, fields.String("tag"));
  CUBE_TRY(FsDevice::CheckTag(share.tag));
  CUBE_ASSIGN(share.read_only, fields.Bool("read_only"));
  auto id = [&](const char* name, bool optional) -> Result<std::optional<uint32_t>> {
    CUBE_ASSIGN(uint64_t number, fields.Number(name));
    if (optional && number == kNone) return std::optional<uint32_t>();
    if (number >= UINT32_MAX) return Errorf("\"%s\" is no user or group", name);
    return std::optional<uint32_t>(static_cast<uint32_t>(number));
  };
  CUBE_ASSIGN(share.host_uid, id("host_uid", true));
  CUBE_ASSIGN(share.host_gid, id("host_gid", true));
  CUBE_ASSIGN(std::optional<uint32_t> uid, id("guest_uid", false));
  CUBE_ASSIGN(std::optional<uint32_t> gid, id("guest_gid", false));
  share.guest_uid = *uid;
  share.guest_gid = *gid;
  return share;
}

void WriteShare(JsonWriter* json, const ShareConfig& share) {
  json->BeginObject().Key("directory").String(share.directory).Key("tag").String(share.tag);
  json->Key("read_only").Bool(share.read_only);
  json->Key("host_uid").Uint(share.host_uid ? *share.host_uid : kNone);
  json->Key("host_gid").Uint(share.host_gid ? *share.host_gid : kNone);
  json->Key("guest_uid").Uint(share.guest_uid).Key("guest_gid").Uint(share.guest_gid);
  json->EndObject();
}

Result<NetOptions> ReadNic(const JsonFields& fields) {
  NetOptions nic;
  CUBE_ASSIGN(std::string mac, fields.String("mac"));
  CUBE_ASSIGN(nic.mac, ParseMac(mac));
  CUBE_ASSIGN(uint64_t mtu, fields.Number("mtu"));
  if (mtu > ::cube::devices::net::kMaxMtu) {
    return Errorf("an MTU of %llu", static_cast<unsigned long long>(mtu));
  }
  nic.mtu = static_cast<uint32_t>(mtu);
  CUBE_ASSIGN(nic.offloads, fields.Bool("offloads"));
  CUBE_ASSIGN(nic.receive, ReadLimits(fields, "receive"));
  CUBE_ASSIGN(nic.transmit, ReadLimits(fields, "transmit"));
  return nic;
}

void WriteNic(JsonWriter* json, const NetOptions& nic) {
  json->BeginObject().Key("mac").String(MacText(nic.mac)).Key("mtu").Uint(nic.mtu);
  json->Key("offloads").Bool(nic.offloads);
  WriteLimits(json, "receive", nic.receive);
  WriteLimits(json, "transmit", nic.transmit);
  json->EndObject();
}

}  // namespace

Result<OutsideFile> OutsideFile::Of(int fd, const std::string& path) {
  // As seen from anywhere, and whatever becomes of links on the way.
  char resolved[PATH_MAX];
  if (realpath(path.c_str(), resolved) == nullptr) return ErrnoError("%s", path.c_str());
  return Describe(fd, resolved);
}

Status OutsideFile::Check(int fd) const {
  CUBE_ASSIGN(OutsideFile now, Describe(fd, path));
  if (now.bytes != bytes) {
    return Errorf("%s has %llu bytes, it had %llu when the snapshot was taken", path.c_str(),
                  static_cast<unsigned long long>(now.bytes),
                  static_cast<unsigned long long>(bytes));
  }
  if (now.inode == inode && now.modified == modified) return OkStatus();
  return Errorf(
      "%s is another file, or was changed, since the snapshot was taken (inode %llu, "
      "was %llu; modified %llu.%09llu, was %llu.%09llu)",
      path.c_str(), static_cast<unsigned long long>(now.inode),
      static_cast<unsigned long long>(inode),
      static_cast<unsigned long long>(now.modified / 1'000'000'000),
      static_cast<unsigned long long>(now.modified % 1'000'000'000),
      static_cast<unsigned long long>(modified / 1'000'000'000),
      static_cast<unsigned long long>(modified % 1'000'000'000));
}

std::vector<std::string> Hardware::DeviceNames() const {
  std::vector<std::string> names;
  for (const DiskHardware& disk : disks) names.push_back(disk.name);
  names.emplace_back("balloon");
  names.emplace_back("rng");
  for (const ShareConfig& share : shares) names.push_back("fs-" + share.tag);
  for (size_t i = 0; i < nics.size(); ++i) names.push_back(Format("eth%zu", i));
  if (vsock_cid) names.emplace_back("vsock");
  return names;
}

void Hardware::Write(JsonWriter* json) const {
  json->BeginObject();
  json->Key("disks").BeginArray();
  for (const DiskHardware& disk : disks) WriteDisk(json, disk);
  json->EndArray();
  json->Key("balloon_pages").Uint(balloon_pages);
  json->Key("shares").BeginArray();
  for (const ShareConfig& share : shares) WriteShare(json, share);
  json->EndArray();
  json->Key("nics").BeginArray();
  for (const NetOptions& nic : nics) WriteNic(json, nic);
  json->EndArray();
  // 0 to 2 are no guest's.
  json->Key("vsock_cid").Uint(vsock_cid.value_or(0));
  json->EndObject();
}

Result<Hardware> Hardware::Read(const JsonFields& fields) {
  Hardware hardware;
  CUBE_ASSIGN(std::vector<JsonFields> disks, fields.Objects("disks", kMaxOfAKind));
  for (size_t i = 0; i < disks.size(); ++i) {
    CUBE_ASSIGN(DiskHardware disk, ReadDisk(disks[i]));
    if (disk.name[2] != static_cast<char>('a' + i)) {
      return Errorf("disk %zu is named %s", i, disk.name.c_str());
    }
    hardware.disks.push_back(std::move(disk));
  }
  CUBE_ASSIGN(uint64_t balloon, fields.Number("balloon_pages"));
  if (balloon > UINT32_MAX) {
    return Errorf("a balloon of %llu pages", static_cast<unsigned long long>(balloon));
  }
  hardware.balloon_pages = static_cast<uint32_t>(balloon);
  CUBE_ASSIGN(std::vector<JsonFields> shares, fields.Objects("shares", kMaxOfAKind));
  for (const JsonFields& each : shares) {
    CUBE_ASSIGN(ShareConfig share, ReadShare(each));
    hardware.shares.push_back(std::move(share));
  }
  CUBE_ASSIGN(std::vector<JsonFields> nics, fields.Objects("nics", kMaxOfAKind));
  for (const JsonFields& each : nics) {
    CUBE_ASSIGN(NetOptions nic, ReadNic(each));
    hardware.nics.push_back(std::move(nic));
  }
  CUBE_ASSIGN(uint64_t cid, fields.Number("vsock_cid"));
  if (cid != 0) hardware.vsock_cid = cid;
  return hardware;
}

}  // namespace cube::snapshot
