#include "devices/virtio/queue.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "devices/virtio/testing/echo_device.h"
#include "devices/virtio/testing/fake_driver.h"

namespace cube::devices::virtio {
namespace {

using fake::EchoDevice;
using fake::FakeDriver;

class QueueTest : public ::testing::Test {
 protected:
  void Start(uint64_t features = ~0ull) { driver_.Start(features | kFeatureVersion1); }
  void ExpectFailure(const std::string& text) {
    driver_.Kick(0);
    driver_.Pump();
    EXPECT_NE(driver_.status() & kStatusNeedsReset, 0u);
    EXPECT_NE(driver_.transport().failure().find(text), std::string::npos)
        << driver_.transport().failure();
    // Nothing is processed any more, and a reset makes it whole.
    driver_.Start();
    ExpectEcho(false);
  }
  void ExpectEcho(bool indirect) {
    const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7};
    uint64_t out = driver_.Allocate(bytes);
    uint64_t in = driver_.Allocate(16);
    driver_.Add(0, {{out, 3, false}, {out + 3, 4, false}, {in, 2, true}, {in + 2, 14, true}},
                indirect);
    driver_.Kick(0);
    auto used = driver_.WaitUsed(0);
    ASSERT_TRUE(used);
    EXPECT_EQ(used->written, 7u);
    EXPECT_TRUE(std::ranges::equal(driver_.Memory(in, 7), bytes));
  }
  // One descriptor at head 0, made available.
  void Offer(const Descriptor& descriptor) {
    driver_.SetDescriptor(0, 0, descriptor);
    driver_.SetAvailable(0, 0, 0);
    driver_.PublishAvailable(0, 1);
  }

  FakeDriver driver_{EchoDevice::Make};
};

TEST_F(QueueTest, CarriesChainsOfSeveralBuffers) {
  Start();
  for (int i = 0; i < 100; ++i) ExpectEcho(i % 2 != 0);  // around the ring several times
}

TEST_F(QueueTest, WorksWithoutEventIndicesAndIndirectTables) {
  Start(EchoDevice::kFeature);
  for (int i = 0; i < 100; ++i) ExpectEcho(false);
}

TEST_F(QueueTest, IndicesWrap) {
  Start();
  const uint8_t byte[] = {1};
  for (int i = 0; i < 70000; ++i) {
    if (i % 1000 == 0) Start();  // memory for buffers
    driver_.AddRequest(0, byte, {1}, nullptr);
    driver_.Kick(0);
    driver_.Pump();
    ASSERT_TRUE(driver_.TakeUsed(0));
  }
}

TEST_F(QueueTest, InterruptsOnlyWhereTheEventIndexAsks) {
  Start();
  const uint8_t byte[] = {1};
  driver_.TakeInterrupts();
  for (int i = 0; i < 4; ++i) driver_.AddRequest(0, byte, {1}, nullptr);
  driver_.Kick(0);
  driver_.Pump();
  EXPECT_EQ(driver_.TakeInterrupts(), 1u);  // used_event is 0: the first of the batch
  // Asked for the sixth, not for the fifth.
  driver_.SetUsedEvent(0, 5);
  driver_.AddRequest(0, byte, {1}, nullptr);
  driver_.Kick(0);
  driver_.Pump();
  EXPECT_EQ(driver_.TakeInterrupts(), 0u);
  driver_.AddRequest(0, byte, {1}, nullptr);
  driver_.Kick(0);
  driver_.Pump();
  EXPECT_EQ(driver_.TakeInterrupts(), 1u);
}

TEST_F(QueueTest, HonoursNoInterruptFlag) {
  Start(EchoDevice::kFeature);
  driver_.TakeInterrupts();
  driver_.SetAvailableFlags(0, kAvailNoInterrupt);
  ExpectEcho(false);
  EXPECT_EQ(driver_.TakeInterrupts(), 0u);
}

TEST_F(QueueTest, RefusesDescriptorsPastTheTable) {
  Start();
  driver_.SetAvailable(0, 0, 16);
  driver_.PublishAvailable(0, 1);
  ExpectFailure("queue 0: descriptor 16 of 16");
  Start();
  Offer({FakeDriver::kMemoryStart, 1, kDescriptorNext, 99});
  ExpectFailure("descriptor 99 of 16");
}

TEST_F(QueueTest, RefusesLoops) {
  Start();
  Offer({FakeDriver::kMemoryStart, 1, kDescriptorNext, 0});
  ExpectFailure("longer than the queue");
}

TEST_F(QueueTest, RefusesBuffersOutsideMemory) {
  const Descriptor bad[] = {
      {0, 16, 0, 0},
      {FakeDriver::kMemoryStart + FakeDriver::kMemorySize - 8, 16, 0, 0},
      {FakeDriver::kMemoryStart, 0xffffffff, kDescriptorWrite, 0},
      {~0ull - 7, 16, 0, 0},
  };
  for (const Descriptor& descriptor : bad) {
    Start();
    Offer(descriptor);
    ExpectFailure("is not in guest memory");
  }
}

TEST_F(QueueTest, RefusesAWritableBufferBeforeAReadableOne) {
  Start();
  driver_.SetDescriptor(0, 1, {FakeDriver::kMemoryStart, 4, 0, 0});
  Offer({FakeDriver::kMemoryStart, 4, kDescriptorNext | kDescriptorWrite, 1});
  ExpectFailure("after one to write to");
}

TEST_F(QueueTest, RefusesMalformedIndirectTables) {
  const Descriptor bad[] = {
      {FakeDriver::kMemoryStart, 0, kDescriptorIndirect, 0},
      {FakeDriver::kMemoryStart, 24, kDescriptorIndirect, 0},
      {FakeDriver::kMemoryStart, 16 * 17, kDescriptorIndirect, 0},
      {0, 16, kDescriptorIndirect, 0},
  };
  for (const Descriptor& descriptor : bad) {
    Start();
    Offer(descriptor);
    ExpectFailure("indirect table at");
  }
  Start();
  Offer({FakeDriver::kMemoryStart, 16, kDescriptorIndirect | kDescriptorNext, 1});
  ExpectFailure("indirect where none may be");
  // A table in a table.
  Start();
  Descriptor inner = {FakeDriver::kMemoryStart, 16, kDescriptorIndirect, 0};
  uint64_t table =
      driver_.Allocate(std::span(reinterpret_cast<const uint8_t*>(&inner), sizeof inner));
  Offer({table, 16, kDescriptorIndirect, 0});
  ExpectFailure("indirect where none may be");
  // Not negotiated.
  Start(EchoDevice::kFeature);
  Offer({FakeDriver::kMemoryStart, 16, kDescriptorIndirect, 0});
  ExpectFailure("indirect where none may be");
}

TEST_F(QueueTest, RefusesMoreChainsThanDescriptors) {
  Start();
  driver_.PublishAvailable(0, 17);
  ExpectFailure("17 chains available and 0 in use, with 16 descriptors");
}

TEST_F(QueueTest, ZeroLengthBuffersAreNothing) {
  Start();
  uint64_t somewhere = 0;  // not memory, but nobody looks
  driver_.Add(0, {{somewhere, 0, false}, {somewhere, 0, true}});
  driver_.Kick(0);
  auto used = driver_.WaitUsed(0);
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, 0u);
}

TEST_F(QueueTest, UndoPopBringsTheSameChainAgain) {
  Start();
  const uint8_t bytes[] = {9};
  uint16_t head = driver_.AddRequest(1, bytes, {1}, nullptr);
  auto& host = static_cast<EchoDevice&>(driver_.device());
  host.Undo();
  driver_.Kick(1);
  driver_.Pump();
  ASSERT_EQ(host.held.size(), 1u);
  host.FinishHeld();
  EXPECT_EQ(driver_.WaitUsed(1)->head, head);
}

TEST_F(QueueTest, SaveNeedsAllChainsBack) {
  Start();
  const uint8_t bytes[] = {9};
  driver_.AddRequest(1, bytes, {1}, nullptr);
  driver_.Kick(1);
  driver_.Pump();
  StateWriter state;
  EXPECT_EQ(driver_.transport().Save(&state).error().message(),
            "device: queue 1 has 1 requests under way");
  driver_.transport().Quiesce();
  EXPECT_TRUE(driver_.transport().Save(&state).ok());
}

// What is filled is the driver's only once it is published, and then all of it at once.
TEST_F(QueueTest, FilledChainsAreSeenTogether) {
  Start();
  auto& echo = static_cast<EchoDevice&>(driver_.device());
  for (int i = 0; i < 2; ++i) driver_.AddRequest(1, {}, {8}, nullptr);
  driver_.Kick(1);
  driver_.Pump();
  ASSERT_EQ(echo.held.size(), 2u);
  Virtqueue& queue = echo.queue(1);
  queue.Fill(&echo.held[0], 5);
  queue.Fill(&echo.held[1], 6);
  echo.held.clear();
  EXPECT_EQ(queue.in_flight(), 0u);
  EXPECT_FALSE(driver_.TakeUsed(1));
  queue.Publish();
  EXPECT_EQ(driver_.TakeUsed(1)->written, 5u);
  EXPECT_EQ(driver_.TakeUsed(1)->written, 6u);
  driver_.TakeInterrupts();
  queue.Notify();
  EXPECT_EQ(driver_.TakeInterrupts(), 1u);
}

}  // namespace
}  // namespace cube::devices::virtio
