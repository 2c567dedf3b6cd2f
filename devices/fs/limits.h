#ifndef CUBE_DEVICES_FS_LIMITS_H_
#define CUBE_DEVICES_FS_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace cube::devices::fs {

// What a guest can make one share take of the host. What would go beyond is refused with ENFILE.
struct Limits {
  // Files the guest's kernel knows of. It forgets them when it needs the memory, of which one takes
  // more there than here.
  size_t inodes = 128 * 1024;
  // Bytes of their paths, kept while they have no descriptor.
  size_t path_bytes = 16 << 20;
  // Descriptors kept for those used last, and for those that have open files.
  size_t warm_inodes = 384;
  // Open files and directories.
  size_t handles = 512;

  // Descriptors of the process that a share may need.
  size_t descriptors() const { return warm_inodes + 2 * handles + 8; }
};

// Of a volume, several of which a sandbox may have, in a jail with few descriptors.
inline constexpr Limits kVolumeLimits = {
    .inodes = 32 * 1024, .path_bytes = 4 << 20, .warm_inodes = 128, .handles = 256};

// One READ, WRITE or READDIR moves at most this.
inline constexpr uint32_t kMaxTransfer = 1 << 20;
// One COPY_FILE_RANGE; the guest's kernel asks again for the rest.
inline constexpr uint64_t kMaxCopy = 8 << 20;

// What is done for one share before the event loop looks after other descriptors.
inline constexpr uint32_t kTurnRequests = 32;
inline constexpr uint64_t kTurnBytes = 2 << 20;

}  // namespace cube::devices::fs

#endif  // CUBE_DEVICES_FS_LIMITS_H_
