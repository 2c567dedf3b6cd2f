#ifndef CUBE_DEVICES_BALLOON_SPEC_H_
#define CUBE_DEVICES_BALLOON_SPEC_H_

#include <cstdint>

// What virtio 1.2 section 5.5 lays down for the memory balloon.
namespace cube::devices::balloon {

inline constexpr uint64_t kFeatureDeflateOnOom = 1ull << 2;
inline constexpr uint64_t kFeatureReporting = 1ull << 5;

// The reporting queue comes right after these two: queues of features that are not offered (of
// statistics and of free page hints) are not counted, which is how Linux numbers them.
inline constexpr uint32_t kInflateQueue = 0;
inline constexpr uint32_t kDeflateQueue = 1;
inline constexpr uint32_t kReportingQueue = 2;

// The unit of page numbers, whatever the guest's page size (5.5.6).
inline constexpr uint32_t kPageShift = 12;

struct Config {
  uint32_t num_pages;  // wanted in the balloon, by the host
  uint32_t actual;     // in it, by the driver
};

}  // namespace cube::devices::balloon

#endif  // CUBE_DEVICES_BALLOON_SPEC_H_
