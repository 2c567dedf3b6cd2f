#include "devices/balloon/balloon.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>

#include "devices/virtio/testing/fake_driver.h"

namespace cube::devices {
namespace {

using virtio::fake::FakeDriver;

constexpr uint32_t kPage = 4096;

std::unique_ptr<virtio::Device> Make(vmm::EventLoop*) { return Balloon::Create(100); }

uint64_t Counter(FakeDriver& driver, const std::string& name) {
  uint64_t found = ~uint64_t{0};
  driver.transport().Metrics([&](const char* counter, uint64_t value) {
    if (name == counter) found = value;
  });
  return found;
}

class BalloonTest : public ::testing::Test {
 protected:
  // `count` pages in a row, filled with ones.
  uint64_t FullPages(uint32_t count) {
    uint64_t address = driver_.Allocate(count * kPage, kPage);
    std::ranges::fill(driver_.Memory(address, count * kPage), uint8_t{1});
    return address;
  }
  bool IsZero(uint64_t address, size_t size) {
    return std::ranges::all_of(driver_.Memory(address, size), [](uint8_t b) { return b == 0; });
  }
  bool IsFull(uint64_t address, size_t size) {
    return std::ranges::all_of(driver_.Memory(address, size), [](uint8_t b) { return b == 1; });
  }
  void Inflate(const std::vector<uint32_t>& numbers) {
    driver_.AddRequest(balloon::kInflateQueue,
                       {reinterpret_cast<const uint8_t*>(numbers.data()), numbers.size() * 4}, {},
                       nullptr);
    driver_.Kick(balloon::kInflateQueue);
    auto used = driver_.WaitUsed(balloon::kInflateQueue);
    ASSERT_TRUE(used);
    EXPECT_EQ(used->written, 0u);
  }
  void Report(const std::vector<FakeDriver::Buffer>& areas) {
    driver_.Add(balloon::kReportingQueue, areas);
    driver_.Kick(balloon::kReportingQueue);
    ASSERT_TRUE(driver_.WaitUsed(balloon::kReportingQueue));
  }

  Balloon& balloon() { return static_cast<Balloon&>(driver_.device()); }
  FakeDriver driver_{Make};
};

TEST_F(BalloonTest, ReportedPagesGoBackToTheHost) {
  driver_.Start();
  uint64_t pages = FullPages(6);
  Report({{pages, 2 * kPage, true}, {pages + 3 * kPage, 2 * kPage, true}});
  unsigned char resident[6];
  ASSERT_EQ(mincore(driver_.Memory(pages, 6 * kPage).data(), 6 * kPage, resident), 0);
  EXPECT_EQ((std::vector<int>{resident[0] & 1, resident[1] & 1, resident[2] & 1, resident[3] & 1}),
            (std::vector<int>{0, 0, 1, 0}));
  EXPECT_TRUE(IsZero(pages, 2 * kPage));
  EXPECT_TRUE(IsFull(pages + 2 * kPage, kPage)) << "not reported";
  EXPECT_TRUE(IsZero(pages + 3 * kPage, 2 * kPage));
  EXPECT_TRUE(IsFull(pages + 5 * kPage, kPage)) << "not reported";
  EXPECT_EQ(Counter(driver_, "reported_pages"), 4u);
}

TEST_F(BalloonTest, OnlyWholePagesGo) {
  driver_.Start();
  uint64_t pages = FullPages(4);
  Report({{pages + 100, 3 * kPage, true}});
  EXPECT_TRUE(IsFull(pages, kPage));
  EXPECT_TRUE(IsZero(pages + kPage, 2 * kPage));
  EXPECT_TRUE(IsFull(pages + 3 * kPage, kPage));
  Report({{pages + 100, 50, true}});
  EXPECT_TRUE(IsFull(pages, kPage));
}

TEST_F(BalloonTest, BuffersToReadAreNotReports) {
  driver_.Start();
  uint64_t pages = FullPages(1);
  Report({{pages, kPage, false}});
  EXPECT_TRUE(IsFull(pages, kPage));
}

TEST_F(BalloonTest, InflatesInAnyOrder) {
  driver_.Start();
  uint64_t pages = FullPages(5);
  auto first = static_cast<uint32_t>(pages / kPage);
  Inflate({first + 4, first, first + 1, first + 1});
  EXPECT_TRUE(IsZero(pages, 2 * kPage));
  EXPECT_TRUE(IsFull(pages + 2 * kPage, 2 * kPage));
  EXPECT_TRUE(IsZero(pages + 4 * kPage, kPage));
}

TEST_F(BalloonTest, PagesThatAreNotMemoryAreRefused) {
  driver_.Start();
  uint64_t end = FakeDriver::kMemoryStart + FakeDriver::kMemorySize;
  auto last = static_cast<uint32_t>(end / kPage - 1);
  std::ranges::fill(driver_.Memory(end - kPage, kPage), uint8_t{1});
  Inflate({0, last, last + 1, 0xffffffff, 0xfffffffe});
  EXPECT_TRUE(IsZero(end - kPage, kPage));
  EXPECT_EQ(Counter(driver_, "inflated_pages"), 1u);
  EXPECT_EQ(Counter(driver_, "refused"), 4u);
}

TEST_F(BalloonTest, HalfANumberIsIgnored) {
  driver_.Start();
  const uint8_t bytes[] = {1, 2, 3};
  driver_.AddRequest(balloon::kInflateQueue, bytes, {}, nullptr);
  driver_.Kick(balloon::kInflateQueue);
  ASSERT_TRUE(driver_.WaitUsed(balloon::kInflateQueue));
  EXPECT_EQ(Counter(driver_, "inflated_pages"), 0u);
}

// A guest that reports what it uses harms itself only.
TEST_F(BalloonTest, TheQueueItselfMayBeReported) {
  driver_.Start();
  driver_.Add(balloon::kReportingQueue,
              {{FakeDriver::kMemoryStart, static_cast<uint32_t>(FakeDriver::kMemorySize), true}});
  driver_.Kick(balloon::kReportingQueue);
  driver_.Pump();
  EXPECT_EQ(Counter(driver_, "reported_pages"), FakeDriver::kMemorySize / kPage);
  driver_.Start();
  uint64_t pages = FullPages(1);
  Report({{pages, kPage, true}});
  EXPECT_TRUE(IsZero(pages, kPage));
}

TEST_F(BalloonTest, TheHostSetsTheTarget) {
  driver_.Start();
  EXPECT_EQ(driver_.ReadConfig(0, 4)[0], 100);
  uint32_t generation = driver_.Read(virtio::kMmioConfigGeneration);
  driver_.TakeInterrupts();
  balloon().SetTarget(3);
  EXPECT_EQ(driver_.ReadConfig(0, 4)[0], 3);
  EXPECT_NE(driver_.Read(virtio::kMmioConfigGeneration), generation);
  EXPECT_EQ(driver_.TakeInterrupts(), 1u);
  EXPECT_EQ(driver_.Read(virtio::kMmioInterruptStatus), virtio::kInterruptConfigChange);
  balloon().SetTarget(3);
  EXPECT_EQ(driver_.TakeInterrupts(), 0u) << "nothing has changed";
  driver_.Write(virtio::kMmioConfig + 4, 2);
  EXPECT_EQ(balloon().actual(), 2u);
  driver_.Write(virtio::kMmioConfig, 77);
  EXPECT_EQ(driver_.ReadConfig(0, 4)[0], 3) << "the target is the host's";
  EXPECT_EQ(Counter(driver_, "driver_errors"), 1u);
}

// More requests than one turn handles are all done.
TEST_F(BalloonTest, ManyRequestsTakeTurns) {
  driver_.Start();
  const uint8_t bytes[4] = {0, 1, 0, 0};
  for (int i = 0; i < 64; ++i) driver_.AddRequest(balloon::kDeflateQueue, bytes, {}, nullptr);
  driver_.Kick(balloon::kDeflateQueue);
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(driver_.WaitUsed(balloon::kDeflateQueue));
  EXPECT_EQ(Counter(driver_, "deflate_requests"), 64u);
}

TEST_F(BalloonTest, GoesOnAfterARestore) {
  driver_.Start();
  driver_.Write(virtio::kMmioConfig + 4, 50);
  uint64_t pages = FullPages(1);
  driver_.Add(balloon::kReportingQueue, {{pages, kPage, true}});
  driver_.Kick(balloon::kReportingQueue);  // still pending when the state is saved
  ASSERT_TRUE(driver_.SaveAndRestore([](vmm::EventLoop*) { return Balloon::Create(8); }).ok());
  ASSERT_TRUE(driver_.WaitUsed(balloon::kReportingQueue));
  EXPECT_TRUE(IsZero(pages, kPage));
  EXPECT_EQ(balloon().actual(), 50u);
  EXPECT_EQ(driver_.ReadConfig(0, 4)[0], 8) << "the target is the new host's";
  EXPECT_EQ(driver_.Read(virtio::kMmioInterruptStatus) & virtio::kInterruptConfigChange,
            virtio::kInterruptConfigChange);
}

}  // namespace
}  // namespace cube::devices
