#include "pool/jail/demotion.h"

#include <gtest/gtest.h>
#include <time.h>
#include <unistd.h>

namespace cube::pool {
namespace {

constexpr uint64_t kMs = 1'000'000;

class DemotionTest : public ::testing::Test {
 protected:
  DemotionTest() : demotion_([this](pid_t pid, bool all) { return Ask(pid, all); }) {
    demotion_.Add("a", 1);
    demotion_.Look(now_);
  }

  std::optional<Demotion::Wish> Ask(pid_t, bool all) {
    if (gone_) return {};
    asked_ += all;
    return Demotion::Wish{run_, all ? wanted_ : 0};
  }
  // Half a second in which it ran and wanted so much, ms: "behind", "before", or "" for no change.
  std::string Pass(uint64_t run, uint64_t wanted) {
    now_ += 500 * kMs;
    run_ += run * kMs;
    wanted_ += wanted * kMs;
    auto changes = demotion_.Look(now_);
    if (changes.empty()) return "";
    EXPECT_EQ(changes.size(), 1u);
    EXPECT_EQ(changes[0].id, "a");
    return changes[0].is_behind ? "behind" : "before";
  }

  uint64_t now_ = 1000 * kMs, run_ = 7 * kMs, wanted_ = 9 * kMs;
  int asked_ = 0;
  bool gone_ = false;
  Demotion demotion_;
};

TEST_F(DemotionTest, WhoWantsAllTheTimeComesBehindUntilItDoesNot) {
  EXPECT_EQ(Pass(400, 500), "behind");
  EXPECT_EQ(Pass(500, 500), "");
  // It gets nothing, and wants all the same.
  EXPECT_EQ(Pass(0, 500), "");
  EXPECT_EQ(Pass(1, 500), "");
  EXPECT_EQ(Pass(100, 200), "");
  EXPECT_EQ(Pass(100, 200), "before");
  EXPECT_EQ(Pass(100, 200), "");
  EXPECT_EQ(Pass(100, 450), "behind");
}

TEST_F(DemotionTest, WhoWantsNowAndThenStays) {
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Pass(150, 300), "");
}

TEST_F(DemotionTest, AnIdleOneIsNotAskedMuch) {
  const int before = asked_;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Pass(2, 400), "");
  EXPECT_EQ(asked_, before);
  // What it had wanted long ago does not count.
  EXPECT_EQ(Pass(400, 500), "");
  EXPECT_EQ(Pass(400, 500), "behind");
}

TEST_F(DemotionTest, OneThatIsGoneIsLeft) {
  gone_ = true;
  EXPECT_EQ(Pass(500, 500), "");
  demotion_.Remove("a");
  EXPECT_TRUE(demotion_.empty());
}

TEST(DemotionClocksTest, AProcessHasRunAndWanted) {
  auto before = Demotion::WishOf(getpid(), true);
  ASSERT_TRUE(before.has_value());
  timespec used = {};
  const uint64_t end = before->run_ns + 20 * kMs;
  while (static_cast<uint64_t>(used.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(used.tv_nsec) <
         end) {
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  }
  sched_yield();  // what a thread has run is added up when it stops
  auto after = Demotion::WishOf(getpid(), true);
  ASSERT_TRUE(after.has_value());
  EXPECT_GE(after->run_ns, end);
  EXPECT_GE(after->wanted_ns - before->wanted_ns, 10 * kMs);
  EXPECT_FALSE(Demotion::WishOf(1 << 30, true).has_value());
}

}  // namespace
}  // namespace cube::pool
