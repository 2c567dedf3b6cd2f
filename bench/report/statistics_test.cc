#include "bench/report/statistics.h"

#include <gtest/gtest.h>

#include <random>

namespace cube::bench {
namespace {

TEST(StatisticsTest, QuantilesLieBetweenNeighbours) {
  const std::vector<double> sorted = {1, 2, 4, 8};
  EXPECT_DOUBLE_EQ(Quantile(sorted, 0), 1);
  EXPECT_DOUBLE_EQ(Quantile(sorted, 0.5), 3);
  EXPECT_DOUBLE_EQ(Quantile(sorted, 1), 8);
  EXPECT_DOUBLE_EQ(Quantile(sorted, 7), 8);
  EXPECT_DOUBLE_EQ(Quantile(sorted, -1), 1);
  EXPECT_DOUBLE_EQ(Quantile({5}, 0.99), 5);
  EXPECT_DOUBLE_EQ(Quantile({}, 0.5), 0);
}

TEST(StatisticsTest, Summary) {
  std::vector<double> samples;
  for (int i = 100; i >= 0; --i) samples.push_back(i);
  Summary summary = Summarise(samples);
  EXPECT_EQ(summary.count, 101u);
  EXPECT_DOUBLE_EQ(summary.least, 0);
  EXPECT_DOUBLE_EQ(summary.p50, 50);
  EXPECT_DOUBLE_EQ(summary.p90, 90);
  EXPECT_DOUBLE_EQ(summary.p95, 95);
  EXPECT_DOUBLE_EQ(summary.p99, 99);
  EXPECT_DOUBLE_EQ(summary.most, 100);
  EXPECT_DOUBLE_EQ(summary.mean, 50);
  EXPECT_EQ(Summarise({}).count, 0u);
}

std::vector<double> Draw(double middle, uint64_t seed, size_t count) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(middle, 1);
  std::vector<double> samples(count);
  for (double& one : samples) one = normal(random);
  return samples;
}

// Of many samples of one population, the interval misses the population's median rarely.
TEST(StatisticsTest, TheIntervalHasTheMedian) {
  int missed = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Interval interval = MedianInterval(Draw(10, seed, 50), 300);
    EXPECT_LE(interval.low, interval.high);
    missed += interval.low > 10 || interval.high < 10;
  }
  EXPECT_LE(missed, 24);
  EXPECT_GE(missed, 1);
}

TEST(StatisticsTest, ItIsTheSameForTheSame) {
  std::vector<double> samples = Draw(3, 7, 40);
  EXPECT_EQ(MedianInterval(samples).low, MedianInterval(samples).low);
  EXPECT_EQ(MedianInterval(samples).high, MedianInterval(samples).high);
}

TEST(StatisticsTest, Ratios) {
  Interval same = RatioInterval(Draw(10, 1, 100), Draw(10, 2, 100));
  EXPECT_LT(same.low, 1);
  EXPECT_GT(same.high, 1);
  Interval twice = RatioInterval(Draw(10, 1, 100), Draw(20, 2, 100));
  EXPECT_GT(twice.low, 1.8);
  EXPECT_LT(twice.high, 2.2);
}

TEST(StatisticsTest, FewAndNone) {
  EXPECT_EQ(MedianInterval({}).high, 0);
  EXPECT_EQ(MedianInterval({4}).low, 4);
  EXPECT_EQ(MedianInterval({4}).high, 4);
  EXPECT_EQ(RatioInterval({}, {1}).low, 1);
  EXPECT_EQ(RatioInterval({0, 0}, {1}).high, 1);
}

}  // namespace
}  // namespace cube::bench
