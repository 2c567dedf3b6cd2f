#ifndef CUBE_DEVICES_BLK_OVERLAY_FORMAT_H_
#define CUBE_DEVICES_BLK_OVERLAY_FORMAT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

// How an overlay file begins (overlay_file.h has the rest of its layout).
namespace cube::devices::blk {

inline constexpr char kOverlayMagic[8] = {'C', 'U', 'B', 'E', 'O', 'V', 'L', '\n'};
inline constexpr uint32_t kOverlayVersion = 1;
inline constexpr uint32_t kStateOverlay = 0;
inline constexpr uint32_t kStateLayer = 1;  // frozen
inline constexpr uint64_t kBitmapOffset = 4096;

struct OverlayHeader {
  char magic[8];
  uint32_t version;
  uint32_t state;
  uint64_t disk_size;  // bytes
  uint32_t block_size;
  uint32_t checksum;  // of what comes before
};
static_assert(sizeof(OverlayHeader) == 32);

// FNV-1a: against accidents, not against who can write to the file.
inline uint32_t OverlayChecksum(const OverlayHeader& header) {
  uint8_t bytes[offsetof(OverlayHeader, checksum)];
  memcpy(bytes, &header, sizeof bytes);
  uint32_t hash = 2166136261u;
  for (uint8_t byte : bytes) hash = (hash ^ byte) * 16777619u;
  return hash;
}

}  // namespace cube::devices::blk

#endif  // CUBE_DEVICES_BLK_OVERLAY_FORMAT_H_
