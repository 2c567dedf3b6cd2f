#ifndef CUBE_BASE_MONOTONIC_H_
#define CUBE_BASE_MONOTONIC_H_

#include <time.h>

#include <cstdint>

namespace cube {

// CLOCK_MONOTONIC, nanoseconds.
inline uint64_t MonotonicNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Between two of those; 0 if `to` is the earlier one.
inline double Milliseconds(uint64_t from, uint64_t to) {
  return to < from ? 0 : static_cast<double>(to - from) / 1e6;
}

}  // namespace cube

#endif  // CUBE_BASE_MONOTONIC_H_
