#include "devices/rate_limiter/rate_limiter.h"

#include <gtest/gtest.h>

#include <limits>

namespace cube::devices {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

TEST(TokenBucket, WithoutLimitIsAlwaysReady) {
  TokenBucket bucket;
  bucket.Charge(std::numeric_limits<uint64_t>::max());
  EXPECT_TRUE(bucket.Ready(0));
  EXPECT_EQ(bucket.TimeUntilReady(0), 0u);
}

TEST(TokenBucket, StartsWithTheBurstAndGrowsAtTheRate) {
  TokenBucket bucket(1000, 300, 5 * kSecond);
  EXPECT_TRUE(bucket.Ready(5 * kSecond));
  bucket.Charge(300);
  EXPECT_FALSE(bucket.Ready(5 * kSecond));
  EXPECT_EQ(bucket.TimeUntilReady(5 * kSecond), kSecond / 1000);
  EXPECT_TRUE(bucket.Ready(5 * kSecond + kSecond / 1000));
  EXPECT_EQ(bucket.balance(), 1);
  EXPECT_TRUE(bucket.Ready(100 * kSecond));
  EXPECT_EQ(bucket.balance(), 300);
}

TEST(TokenBucket, WorkLargerThanTheBurstIsPaidAfterwards) {
  TokenBucket bucket(1000, 10, 0);
  bucket.Charge(5010);
  EXPECT_EQ(bucket.TimeUntilReady(0), 5 * kSecond + kSecond / 1000);
  EXPECT_FALSE(bucket.Ready(5 * kSecond));
  EXPECT_TRUE(bucket.Ready(5 * kSecond + kSecond / 1000));
}

// 3 tokens a second, looked at every 100 ms: no look may lose a fraction of a token.
TEST(TokenBucket, LookingOftenLosesNothing) {
  TokenBucket bucket(3, 100, 0);
  bucket.Charge(100);
  for (uint64_t now = 0; now <= 10 * kSecond; now += kSecond / 10) bucket.Ready(now);
  EXPECT_EQ(bucket.balance(), 30);
}

TEST(TokenBucket, ExtremesDoNotOverflow) {
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  TokenBucket bucket(kMax, kMax, 0);
  for (int i = 0; i < 10000; ++i) bucket.Charge(kMax);
  EXPECT_FALSE(bucket.Ready(0));
  EXPECT_GT(bucket.TimeUntilReady(0), 0u);
  EXPECT_TRUE(bucket.Ready(kMax));
  TokenBucket slow(1, 1, 0);
  for (int i = 0; i < 10000; ++i) slow.Charge(kMax);
  EXPECT_EQ(slow.TimeUntilReady(0), static_cast<uint64_t>(INT64_MAX));
}

TEST(TokenBucket, AClockThatGoesBackGivesNothing) {
  TokenBucket bucket(1000, 10, kSecond);
  bucket.Charge(10);
  EXPECT_FALSE(bucket.Ready(0));
  EXPECT_FALSE(bucket.Ready(kSecond));
}

class RateLimiterTest : public ::testing::Test {
 protected:
  std::unique_ptr<RateLimiter> Make(const RateLimits& limits) {
    return RateLimiter::Create(
               limits, &loop_, [this] { ++ready_; }, [this] { return now_; })
        .value();
  }

  vmm::EventLoop loop_ = vmm::EventLoop::Create().value();
  uint64_t now_ = 1;
  int ready_ = 0;
};

TEST_F(RateLimiterTest, NoLimitsLimitNothing) {
  auto limiter = Make({});
  EXPECT_TRUE(limiter->Consume(uint64_t{1} << 60, 1000));
  EXPECT_TRUE(limiter->Consume(1));
  EXPECT_EQ(limiter->limited_count(), 0u);
}

TEST_F(RateLimiterTest, BytesAndOperationsBothCount) {
  auto limiter = Make({.bytes_per_second = 1000, .operations_per_second = 2});
  EXPECT_TRUE(limiter->Consume(10));
  EXPECT_TRUE(limiter->Consume(10));
  EXPECT_FALSE(limiter->Consume(10));
  EXPECT_EQ(limiter->TimeUntilReady(), kSecond / 2);
  now_ += kSecond / 2;
  EXPECT_TRUE(limiter->Consume(3000));
  now_ += kSecond / 2;
  EXPECT_FALSE(limiter->Consume(0));
  now_ += 2 * kSecond;
  EXPECT_TRUE(limiter->Consume(0));
  EXPECT_EQ(limiter->limited_count(), 2u);
}

TEST_F(RateLimiterTest, TheTimerCallsWhoWasRefused) {
  auto limiter = Make({.operations_per_second = 1000, .operations_burst = 1});
  EXPECT_TRUE(limiter->Consume(0));
  EXPECT_FALSE(limiter->Consume(0));
  while (ready_ == 0) ASSERT_TRUE(loop_.RunOnce(10000).ok());
  EXPECT_EQ(ready_, 1);
}

TEST_F(RateLimiterTest, ADestroyedLimiterCallsNobody) {
  auto limiter = Make({.operations_per_second = 1000, .operations_burst = 1});
  EXPECT_TRUE(limiter->Consume(0));
  EXPECT_FALSE(limiter->Consume(0));
  limiter.reset();
  ASSERT_TRUE(loop_.RunOnce(20).ok());
  EXPECT_EQ(ready_, 0);
}

TEST_F(RateLimiterTest, BalancesAreSavedAndCutToTheNewLimits) {
  auto limiter = Make({.bytes_per_second = 1000, .operations_per_second = 100});
  EXPECT_TRUE(limiter->Consume(1500));
  StateWriter writer;
  limiter->Save(&writer);

  now_ = 77 * kSecond;  // another boot of the host, another clock
  auto same = Make({.bytes_per_second = 1000, .operations_per_second = 100});
  StateReader reader(writer.bytes(), "state");
  ASSERT_TRUE(same->Load(&reader).ok());
  ASSERT_TRUE(reader.End().ok());
  EXPECT_EQ(same->TimeUntilReady(), kSecond / 2 + kSecond / 1000);

  auto smaller = Make({.bytes_per_second = 10});
  StateReader again(writer.bytes(), "state");
  ASSERT_TRUE(smaller->Load(&again).ok());
  EXPECT_EQ(smaller->TimeUntilReady(), kSecond + kSecond / 10);

  StateReader cut(std::span(writer.bytes()).first(9), "state");
  EXPECT_FALSE(smaller->Load(&cut).ok());
}

}  // namespace
}  // namespace cube::devices
