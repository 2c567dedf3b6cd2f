#include "bench/claims/claims.h"

#include <gtest/gtest.h>

#include "bench/claims/create_scenario.h"
#include "bench/claims/published.h"

namespace cube::bench {
namespace {

Verdict VerdictOf(const std::vector<Claim>& claims, const std::string& start) {
  for (const Claim& claim : claims) {
    if (claim.text.starts_with(start)) return claim.verdict;
  }
  ADD_FAILURE() << start;
  return Verdict::kNotMeasured;
}

TEST(ClaimsTest, VerdictsFollowTheFigures) {
  Report report;
  EXPECT_EQ(VerdictOf(Decide(report), "a sandbox is created"), Verdict::kNotMeasured);
  report.measurements = {
      {kCreateGroup, kWarmReady, "ms", {2, 3, 59}},
      {"memory of an instance", "the host's MemAvailable, 100 idle", "KiB", {6000}}};
  auto claims = Decide(report);
  EXPECT_EQ(VerdictOf(claims, "a sandbox is created"), Verdict::kHolds);
  EXPECT_EQ(VerdictOf(claims, "an instance takes less than 5 MB"), Verdict::kFails);
  EXPECT_EQ(VerdictOf(claims, "50 at once"), Verdict::kNotMeasured);
  report.measurements[0].samples.push_back(500);
  EXPECT_EQ(VerdictOf(Decide(report), "a sandbox is created"), Verdict::kFails);
}

TEST(ClaimsTest, NoTimeOfABusyMachineDecides) {
  Report report;
  report.measurements = {
      {kCreateGroup, kWarmReady, "ms", {2, 3, 59}},
      {"memory of an instance", "the host's MemAvailable, 100 idle", "KiB", {6000}}};
  report.warnings = {std::string(kRunRejected) + ": a load of 9"};
  auto claims = Decide(report);
  EXPECT_EQ(VerdictOf(claims, "a sandbox is created"), Verdict::kNotMeasured);
  EXPECT_EQ(VerdictOf(claims, "an instance takes less than 5 MB"), Verdict::kFails);
}

TEST(ClaimsTest, WhatOthersSayHasASourceAndADate) {
  for (const Published& one : PublishedFigures()) {
    EXPECT_FALSE(one.source.empty() || one.date.empty() || one.hardware.empty()) << one.who;
  }
}

}  // namespace
}  // namespace cube::bench
