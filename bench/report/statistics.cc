#include "bench/report/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <random>

namespace cube::bench {
namespace {

constexpr double kLow = 0.025, kHigh = 0.975;

double MedianOfDraw(const std::vector<double>& samples, std::mt19937_64* random,
                    std::vector<double>* draw) {
  std::uniform_int_distribution<size_t> place(0, samples.size() - 1);
  draw->resize(samples.size());
  for (double& one : *draw) one = samples[place(*random)];
  // The middle one of an odd number, the lower middle of an even one: the difference is lost in
  // the interval.
  auto middle = draw->begin() + static_cast<std::ptrdiff_t>((draw->size() - 1) / 2);
  std::nth_element(draw->begin(), middle, draw->end());
  return *middle;
}

Interval MiddleOf(std::vector<double> figures) {
  std::sort(figures.begin(), figures.end());
  return {Quantile(figures, kLow), Quantile(figures, kHigh)};
}

double Median(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  return Quantile(samples, 0.5);
}

}  // namespace

double Quantile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  double place = std::clamp(share, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  size_t below = static_cast<size_t>(std::floor(place));
  size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - static_cast<double>(below));
}

Summary Summarise(std::vector<double> samples) {
  Summary summary;
  summary.count = samples.size();
  if (samples.empty()) return summary;
  std::sort(samples.begin(), samples.end());
  summary.least = samples.front();
  summary.p50 = Quantile(samples, 0.5);
  summary.p90 = Quantile(samples, 0.9);
  summary.p95 = Quantile(samples, 0.95);
  summary.p99 = Quantile(samples, 0.99);
  summary.most = samples.back();
  double sum = std::accumulate(samples.begin(), samples.end(), 0.0);
  summary.mean = sum / static_cast<double>(samples.size());
  return summary;
}

Interval MedianInterval(const std::vector<double>& samples, uint32_t resamples) {
  if (samples.empty()) return {};
  std::mt19937_64 random(samples.size());
  std::vector<double> medians, draw;
  for (uint32_t i = 0; i < resamples; ++i) {
    medians.push_back(MedianOfDraw(samples, &random, &draw));
  }
  return MiddleOf(std::move(medians));
}

Interval RatioInterval(const std::vector<double>& before, const std::vector<double>& after,
                       uint32_t resamples) {
  if (before.empty() || after.empty() || Median(before) == 0) return {1, 1};
  std::mt19937_64 random(before.size() + after.size());
  std::vector<double> ratios, draw;
  for (uint32_t i = 0; i < resamples; ++i) {
    double old = MedianOfDraw(before, &random, &draw);
    double now = MedianOfDraw(after, &random, &draw);
    // A draw of nothing but zeros says nothing.
    if (old != 0) ratios.push_back(now / old);
  }
  return MiddleOf(std::move(ratios));
}

}  // namespace cube::bench
