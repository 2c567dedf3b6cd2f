#ifndef CUBE_BENCH_CLAIMS_STOPWATCH_H_
#define CUBE_BENCH_CLAIMS_STOPWATCH_H_

#include "base/monotonic.h"

namespace cube::bench {

// Time since it was made, in milliseconds.
class Stopwatch {
 public:
  Stopwatch() : start_(MonotonicNow()) {}
  double Ms() const { return static_cast<double>(MonotonicNow() - start_) / 1e6; }

 private:
  uint64_t start_;
};

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_STOPWATCH_H_
