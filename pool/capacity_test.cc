#include "pool/capacity.h"

#include <gtest/gtest.h>

namespace cube::pool {
namespace {

Config Limits() {
  Config config;
  config.memory_mib = 1000;
  config.reserve_mib = 500;
  config.memory_overcommit = 2;
  config.cpu_overcommit = 3;
  return config;
}

class CapacityTest : public ::testing::Test {
 protected:
  CapacityTest() : capacity_([this] { return host_; }) { capacity_.Configure(Limits()); }

  HostResources host_ = {4000, 3000, 2, 0};
  Capacity capacity_;
};

TEST_F(CapacityTest, GuestsTogetherHaveALimitAndGiveBack) {
  auto first = capacity_.Take(1500, 1);
  ASSERT_TRUE(first.ok());
  auto second = capacity_.Take(501, 1);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.refusal().fault, Fault::kNoCapacity);
  EXPECT_EQ(second.refusal().message,
            "no capacity: guests have 1500 MiB of the 2000 MiB they may have together, and this "
            "one needs 501");
  Capacity::Lease moved = std::move(*first);
  EXPECT_EQ(capacity_.counters().memory_mib, 1500u);
  moved = Capacity::Lease();
  EXPECT_EQ(capacity_.counters().memory_mib, 0u);
  EXPECT_EQ(capacity_.counters().machines, 0u);
  EXPECT_TRUE(capacity_.Take(2000, 6).ok());
  EXPECT_EQ(capacity_.Take(1, 7).refusal().message,
            "no capacity: guests have 0 of the 6 vCPUs they may have together, and this one needs "
            "7");
}

TEST_F(CapacityTest, TheReserveOfTheHostIsNobodys) {
  host_.available_mib = 503;
  auto taken = capacity_.Take(1, 1);
  ASSERT_FALSE(taken.ok());
  EXPECT_EQ(taken.refusal().message,
            "no capacity: the host has 503 MiB of memory left, of which 500 are reserved");
  // What runs already is counted whatever the limits.
  Capacity::Lease adopted = capacity_.Adopt(5000, 50);
  EXPECT_EQ(capacity_.counters().memory_mib, 5000u);
}

TEST_F(CapacityTest, APoolLeavesRoomForACreate) {
  EXPECT_TRUE(capacity_.RoomForPool(1000, 1));
  EXPECT_FALSE(capacity_.RoomForPool(1001, 1));
  EXPECT_FALSE(capacity_.RoomForPool(1, 4));
  EXPECT_TRUE(capacity_.Take(1001, 4).ok());
}

TEST_F(CapacityTest, PressureEmptiesPools) {
  host_.available_mib = 700;
  EXPECT_TRUE(capacity_.UnderPressure());
  EXPECT_FALSE(capacity_.RoomForPool(1, 1));
  EXPECT_TRUE(capacity_.Take(1, 1).ok());
}

TEST_F(CapacityTest, StallsArePressureToo) {
  host_.memory_pressure = 25;
  EXPECT_TRUE(capacity_.UnderPressure());
}

}  // namespace
}  // namespace cube::pool
