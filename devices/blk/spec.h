#ifndef CUBE_DEVICES_BLK_SPEC_H_
#define CUBE_DEVICES_BLK_SPEC_H_

#include <cstdint>

// What the virtio specification, version 1.2, section 5.2, lays down for block devices.
namespace cube::devices::blk {

inline constexpr uint64_t kSectorSize = 512;

// Features (5.2.3).
inline constexpr uint64_t kFeatureSegMax = 1ull << 2;
inline constexpr uint64_t kFeatureReadOnly = 1ull << 5;
inline constexpr uint64_t kFeatureBlkSize = 1ull << 6;
inline constexpr uint64_t kFeatureFlush = 1ull << 9;
inline constexpr uint64_t kFeatureTopology = 1ull << 10;
inline constexpr uint64_t kFeatureDiscard = 1ull << 13;
inline constexpr uint64_t kFeatureWriteZeroes = 1ull << 14;

// Configuration space (5.2.4).
struct Config {
  uint64_t capacity;  // sectors
  uint32_t size_max;
  uint32_t seg_max;
  uint16_t cylinders;
  uint8_t heads;
  uint8_t sectors;
  uint32_t blk_size;
  uint8_t physical_block_exp;  // logical blocks in a physical one, as a power of two
  uint8_t alignment_offset;
  uint16_t min_io_size;  // logical blocks
  uint32_t opt_io_size;  // logical blocks
  uint8_t writeback;
  uint8_t unused0;
  uint16_t num_queues;
  uint32_t max_discard_sectors;
  uint32_t max_discard_seg;
  uint32_t discard_sector_alignment;
  uint32_t max_write_zeroes_sectors;
  uint32_t max_write_zeroes_seg;
  uint8_t write_zeroes_may_unmap;
  uint8_t unused1[3];
};
static_assert(sizeof(Config) == 64);  // 60 in the specification, and padding to a multiple of 8

// Requests (5.2.6).
struct RequestHeader {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
static_assert(sizeof(RequestHeader) == 16);

inline constexpr uint32_t kRequestIn = 0;
inline constexpr uint32_t kRequestOut = 1;
inline constexpr uint32_t kRequestFlush = 4;
inline constexpr uint32_t kRequestGetId = 8;
inline constexpr uint32_t kRequestDiscard = 11;
inline constexpr uint32_t kRequestWriteZeroes = 13;

inline constexpr uint32_t kIdSize = 20;

struct DiscardSegment {
  uint64_t sector;
  uint32_t sector_count;
  uint32_t flags;
};
static_assert(sizeof(DiscardSegment) == 16);
inline constexpr uint32_t kSegmentUnmap = 1;

inline constexpr uint8_t kStatusOk = 0;
inline constexpr uint8_t kStatusIoError = 1;
inline constexpr uint8_t kStatusUnsupported = 2;

}  // namespace cube::devices::blk

#endif  // CUBE_DEVICES_BLK_SPEC_H_
