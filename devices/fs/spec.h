#ifndef CUBE_DEVICES_FS_SPEC_H_
#define CUBE_DEVICES_FS_SPEC_H_

#include <cstddef>
#include <cstdint>

// What the virtio specification, version 1.2, section 5.11 lays down for the file system device.
// The protocol of its requests is FUSE, <linux/fuse.h>.
namespace cube::devices::fs {

// 5.11.2: requests that do not wait (FORGET, INTERRUPT) have a queue of their own.
inline constexpr uint32_t kHighPriorityQueue = 0;
inline constexpr uint32_t kRequestQueue = 1;

// 5.11.4. The tag is padded with NULs and has no terminator if it fills the field.
inline constexpr size_t kTagSize = 36;
struct Config {
  char tag[kTagSize];
  uint32_t request_queues;
};
static_assert(sizeof(Config) == 40);

// The versions of FUSE spoken here: from that of the first Linux with virtio-fs (5.4) on.
inline constexpr uint32_t kFuseMajor = 7;
inline constexpr uint32_t kFuseMinorLeast = 31;
inline constexpr uint32_t kFuseMinor = 38;

inline constexpr uint32_t kFusePageSize = 4096;

}  // namespace cube::devices::fs

#endif  // CUBE_DEVICES_FS_SPEC_H_
