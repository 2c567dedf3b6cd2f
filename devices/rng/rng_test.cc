#include "devices/rng/rng.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "devices/virtio/testing/fake_driver.h"

namespace cube::devices {
namespace {

using virtio::fake::FakeDriver;

std::unique_ptr<virtio::Device> Make(vmm::EventLoop*) { return Rng::Create(); }

TEST(Rng, FillsBuffersWithDifferentBytes) {
  FakeDriver driver(Make);
  driver.Start();
  std::vector<uint64_t> first, second;
  driver.AddRequest(0, {}, {64, 64}, &first);
  driver.AddRequest(0, {}, {64}, &second);
  driver.Kick(0);
  EXPECT_EQ(driver.WaitUsed(0)->written, 128u);
  EXPECT_EQ(driver.WaitUsed(0)->written, 64u);
  EXPECT_FALSE(std::ranges::equal(driver.Memory(first[0], 64), driver.Memory(second[0], 64)));
  EXPECT_FALSE(std::ranges::equal(driver.Memory(first[0], 64), driver.Memory(first[1], 64)));
  EXPECT_GT(driver.TakeInterrupts(), 0u);
}

TEST(Rng, OneRequestIsBounded) {
  FakeDriver driver(Make);
  driver.Start();
  driver.AddRequest(0, {}, {1 << 20}, nullptr);
  driver.Kick(0);
  EXPECT_EQ(driver.WaitUsed(0)->written, Rng::kMaxRequest);
}

TEST(Rng, ADriverThatAlwaysHasMoreLeavesOthersTheirTurn) {
  FakeDriver driver(Make);
  driver.Start();
  for (uint32_t i = 0; i <= Rng::kMaxBatch; ++i) driver.AddRequest(0, {}, {16}, nullptr);
  {
    std::lock_guard lock(driver.device().mutex());
    driver.device().ProcessQueue(0);
  }
  for (uint32_t i = 0; i < Rng::kMaxBatch; ++i) ASSERT_TRUE(driver.TakeUsed(0)) << i;
  EXPECT_FALSE(driver.TakeUsed(0));
  EXPECT_TRUE(driver.WaitUsed(0));  // without another kick
}

TEST(Rng, BuffersToReadFromGetNothing) {
  FakeDriver driver(Make);
  driver.Start();
  const uint8_t bytes[16] = {1};
  driver.AddRequest(0, bytes, {}, nullptr);
  driver.Kick(0);
  EXPECT_EQ(driver.WaitUsed(0)->written, 0u);
}

TEST(Rng, GoesOnAfterARestore) {
  FakeDriver driver(Make);
  driver.Start();
  driver.AddRequest(0, {}, {16}, nullptr);
  driver.Kick(0);  // still pending when the state is saved
  ASSERT_TRUE(driver.SaveAndRestore(Make).ok());
  EXPECT_EQ(driver.WaitUsed(0)->written, 16u);
}

}  // namespace
}  // namespace cube::devices
