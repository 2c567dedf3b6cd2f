#ifndef CUBE_BENCH_REPORT_STATISTICS_H_
#define CUBE_BENCH_REPORT_STATISTICS_H_

#include <cstdint>
#include <vector>

namespace cube::bench {

// The value below which a share of `sorted` lies, by linear interpolation between neighbours
// (Hyndman and Fan's definition 7). `share`: 0 to 1. 0 of nothing.
double Quantile(const std::vector<double>& sorted, double share);

struct Summary {
  uint64_t count = 0;
  double least = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, most = 0, mean = 0;
};

// `samples` in any order.
Summary Summarise(std::vector<double> samples);

// Where a figure lies with 95 % confidence.
struct Interval {
  double low = 0, high = 0;
};

// Of the median, by the percentile bootstrap (Efron): `resamples` draws with replacement. The same
// for the same samples. Both ends are the sample of a single one; 0 to 0 of none.
Interval MedianInterval(const std::vector<double>& samples, uint32_t resamples = 1000);

// Of the median of `after` divided by that of `before`, both drawn anew for each ratio. 1 to 1 if
// either has none, or `before` a median of nothing.
Interval RatioInterval(const std::vector<double>& before, const std::vector<double>& after,
                       uint32_t resamples = 1000);

}  // namespace cube::bench

#endif  // CUBE_BENCH_REPORT_STATISTICS_H_
