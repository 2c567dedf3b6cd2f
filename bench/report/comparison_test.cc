#include "bench/report/comparison.h"

#include <gtest/gtest.h>

#include <random>

namespace cube::bench {
namespace {

std::vector<double> Draw(double middle, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(middle, middle / 20);
  std::vector<double> samples(60);
  for (double& one : samples) one = normal(random);
  return samples;
}

Report With(std::vector<Measurement> measurements) {
  Report report;
  report.measurements = std::move(measurements);
  return report;
}

Change ChangeOf(double before, double after, bool less_is_better) {
  Report old = With({{"g", "n", "ms", Draw(before, 1), "", less_is_better, false}});
  Report now = With({{"g", "n", "ms", Draw(after, 2), "", less_is_better, false}});
  return Compare(old, now, 0.05).at(0).change;
}

TEST(ComparisonTest, BetterAndWorse) {
  EXPECT_EQ(ChangeOf(10, 10, true), Change::kSame);
  EXPECT_EQ(ChangeOf(10, 12, true), Change::kWorse);
  EXPECT_EQ(ChangeOf(10, 8, true), Change::kBetter);
  EXPECT_EQ(ChangeOf(10, 12, false), Change::kBetter);
  EXPECT_EQ(ChangeOf(10, 8, false), Change::kWorse);
  // Sure, but too little to count.
  EXPECT_EQ(ChangeOf(10, 10.3, true), Change::kSame);
}

TEST(ComparisonTest, WhatIsInOneOnly) {
  auto all = Compare(With({{"g", "old", "ms", {1}}, {"g", "both", "ms", {1}}}),
                     With({{"g", "new", "ms", {1}}, {"g", "both", "KiB", {1}}}), 0.05);
  ASSERT_EQ(all.size(), 3u);
  for (const Compared& each : all) EXPECT_EQ(each.change, Change::kMissing) << each.name;
  EXPECT_EQ(all[2].name, "old");
}

TEST(ComparisonTest, Machines) {
  Report before, after;
  before.machine = {{"cpu", "A"}, {"kernel", "6.1"}};
  after.machine = {{"cpu", "B"}, {"kernel", "6.1"}};
  EXPECT_EQ(DifferencesOfMachines(before, after),
            std::vector<std::string>{"cpu: \"A\" before, \"B\" after"});
}

TEST(ComparisonTest, Text) {
  auto all = Compare(With({{"g", "n", "ms", Draw(10, 1)}, {"g", "m", "ms", Draw(5, 1)}}),
                     With({{"g", "n", "ms", Draw(30, 2)}, {"g", "m", "ms", Draw(5, 3)}}), 0.05);
  std::string text = ComparisonAsText(all, false);
  EXPECT_NE(text.find("| g: n, ms "), std::string::npos);
  EXPECT_NE(text.find("WORSE"), std::string::npos);
  EXPECT_EQ(text.find("g: m"), std::string::npos);
  EXPECT_NE(ComparisonAsText(all, true).find("g: m"), std::string::npos);
}

}  // namespace
}  // namespace cube::bench
