#ifndef CUBE_SNAPSHOT_HARDWARE_H_
#define CUBE_SNAPSHOT_HARDWARE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json_writer.h"
#include "base/result.h"
#include "devices/blk/blk.h"
#include "devices/fs/fs.h"
#include "devices/net/net.h"
#include "snapshot/json_fields.h"

namespace cube::snapshot {

// A file outside of a snapshot that it builds on. It is known by its size, inode and time of
// modification: reading an image of gigabytes for each clone would cost more than the clone.
struct OutsideFile {
  std::string path;  // absolute
  uint64_t bytes = 0;
  uint64_t inode = 0;
  uint64_t modified = 0;  // nanoseconds since 1970

  // The file at `path`, opened as `fd`.
  static Result<OutsideFile> Of(int fd, const std::string& path);
  // An error if `fd` is not that file, or is not as it was.
  Status Check(int fd) const;
  bool operator==(const OutsideFile&) const = default;
};

struct DiskHardware {
  std::string name;  // of the device: "vda"
  ::cube::devices::BlkOptions options;
  bool read_only = false;
  std::vector<OutsideFile> files;  // an image, then layers over it, the lowest first
  // In a snapshot: its own layer, the file disk-NAME; 0 blocks are none. Of a base it has all that
  // differs from `files`, of a diff what differs from its parent.
  uint64_t layer_blocks = 0;
  std::string layer_xxh3;

  std::string layer_name() const { return "disk-" + name; }
};

// What a machine has beside memory and processors, as far as a guest may know of it: by this the
// same devices are made for a clone. What the host has behind them is the clone's own: a TAP, a
// socket's path, an overlay; a share's directory may be another.
struct Hardware {
  static constexpr size_t kMaxOfAKind = 32;

  std::vector<DiskHardware> disks;
  uint32_t balloon_pages = 0;  // that the guest is asked to give back
  std::vector<::cube::devices::fs::ShareConfig> shares;
  std::vector<::cube::devices::NetOptions> nics;
  std::optional<uint64_t> vsock_cid;

  // Of the devices, in the order in which a guest finds them.
  std::vector<std::string> DeviceNames() const;
  void Write(JsonWriter* json) const;
  // The fields may be anything.
  static Result<Hardware> Read(const JsonFields& fields);
};

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_HARDWARE_H_
