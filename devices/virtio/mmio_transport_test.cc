#include "devices/virtio/mmio_transport.h"

#include <gtest/gtest.h>

#include "devices/virtio/testing/echo_device.h"
#include "devices/virtio/testing/fake_driver.h"

namespace cube::devices::virtio {
namespace {

using fake::EchoDevice;
using fake::FakeDriver;

class MmioTransportTest : public ::testing::Test {
 protected:
  EchoDevice& echo() { return static_cast<EchoDevice&>(driver_.device()); }
  uint64_t Counter(const std::string& name) {
    uint64_t found = ~0ull;
    driver_.transport().Metrics([&](const char* counter, uint64_t value) {
      if (name == counter) found = value;
    });
    return found;
  }

  FakeDriver driver_{EchoDevice::Make};
};

TEST_F(MmioTransportTest, TellsWhatItIs) {
  EXPECT_EQ(driver_.Read(kMmioMagicValue), 0x74726976u);
  EXPECT_EQ(driver_.Read(kMmioVersion), 2u);
  EXPECT_EQ(driver_.Read(kMmioDeviceId), 42u);
  driver_.Write(kMmioQueueSel, 1);
  EXPECT_EQ(driver_.Read(kMmioQueueNumMax), 8u);
  driver_.Write(kMmioQueueSel, 2);
  EXPECT_EQ(driver_.Read(kMmioQueueNumMax), 0u);
  EXPECT_EQ(driver_.OfferedFeatures(),
            EchoDevice::kFeature | kFeatureVersion1 | kFeatureEventIdx | kFeatureIndirectDesc);
  driver_.Write(kMmioDeviceFeaturesSel, 2);
  EXPECT_EQ(driver_.Read(kMmioDeviceFeatures), 0u);
  EXPECT_EQ(driver_.Read(kMmioShmLenLow), 0xffffffffu);
}

TEST_F(MmioTransportTest, RefusesFeaturesThatWereNotOffered) {
  EXPECT_FALSE(driver_.Negotiate(kFeatureVersion1 | 1));
  EXPECT_FALSE(driver_.Negotiate(EchoDevice::kFeature));  // of before version 1
  EXPECT_FALSE(driver_.Negotiate(kFeatureVersion1 | 1ull << 63));
  EXPECT_TRUE(driver_.Negotiate(kFeatureVersion1 | EchoDevice::kFeature));
  driver_.DriverOk();
  EXPECT_EQ(echo().active_features, kFeatureVersion1 | EchoDevice::kFeature);
}

TEST_F(MmioTransportTest, DriverOkNeedsFeaturesOk) {
  driver_.Write(kMmioStatus, 0);
  driver_.Write(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusDriverOk);
  EXPECT_EQ(driver_.status() & kStatusDriverOk, 0u);
  EXPECT_EQ(echo().active_features, 0u);
}

TEST_F(MmioTransportTest, StatusBitsAreNotTakenBack) {
  driver_.Start();
  driver_.Write(kMmioStatus, kStatusAcknowledge);
  EXPECT_NE(driver_.status() & kStatusDriverOk, 0u);
  EXPECT_EQ(echo().resets, 0);
  driver_.Write(kMmioStatus, 0);
  EXPECT_EQ(driver_.status(), 0u);
  EXPECT_EQ(echo().resets, 1);
}

TEST_F(MmioTransportTest, QueuesOutsideMemoryNeedAReset) {
  ASSERT_TRUE(driver_.Negotiate(kFeatureVersion1));
  driver_.Write(kMmioQueueSel, 0);
  driver_.Write(kMmioQueueNum, 16);
  driver_.Write(kMmioQueueDescLow, 0x1000);
  driver_.Write(kMmioQueueReady, 1);
  EXPECT_EQ(driver_.Read(kMmioQueueReady), 0u);
  EXPECT_NE(driver_.status() & kStatusNeedsReset, 0u);
  EXPECT_EQ(driver_.transport().failure(),
            "device: descriptor table at 0x1000 of 256 bytes is not in guest memory");
}

TEST_F(MmioTransportTest, RefusesQueueSizesAndAlignments) {
  for (uint32_t size : {0u, 3u, 32u, 0x10000u, 0x80000010u}) {
    ASSERT_TRUE(driver_.Negotiate(kFeatureVersion1));
    driver_.Write(kMmioQueueSel, 0);
    driver_.Write(kMmioQueueNum, size);
    driver_.Write(kMmioQueueReady, 1);
    EXPECT_NE(driver_.transport().failure().find("is not a power of two up to 16"),
              std::string::npos);
  }
  ASSERT_TRUE(driver_.Negotiate(kFeatureVersion1));
  driver_.Write(kMmioQueueNum, 16);
  driver_.Write(kMmioQueueDescLow, FakeDriver::kMemoryStart + 8);
  driver_.Write(kMmioQueueReady, 1);
  EXPECT_NE(driver_.transport().failure().find("is not aligned to 16"), std::string::npos);
}

TEST_F(MmioTransportTest, AQueueIsNotMovedWhileItIsReady) {
  driver_.Start();
  uint64_t before = Counter("driver_errors");
  driver_.Write(kMmioQueueSel, 0);
  driver_.Write(kMmioQueueDescLow, 0);
  driver_.Write(kMmioQueueNum, 4);
  EXPECT_EQ(Counter("driver_errors"), before + 2);
}

TEST_F(MmioTransportTest, ConfigurationIsReadAtAnyWidth) {
  EXPECT_EQ(driver_.ReadConfig(0, 4), (std::vector<uint8_t>{0x44, 0x33, 0x22, 0x11}));
  EXPECT_EQ(driver_.ReadConfig(2, 1), (std::vector<uint8_t>{0x22}));
  EXPECT_EQ(driver_.ReadConfig(6, 4), (std::vector<uint8_t>{0, 0, 0, 0}));
  EXPECT_EQ(driver_.ReadConfig(0xef8, 8), std::vector<uint8_t>(8));
  driver_.Write(kMmioConfig + 4, 77);
  EXPECT_EQ(echo().config.second, 77u);
  uint64_t before = Counter("driver_errors");
  driver_.Write(kMmioConfig + 0xe00, 77);
  EXPECT_EQ(Counter("driver_errors"), before + 1);
}

TEST_F(MmioTransportTest, AccessesOfOddWidthAreErrors) {
  std::vector<uint8_t> data(8, 0xff);
  uint64_t before = Counter("driver_errors");
  driver_.transport().Read(kMmioMagicValue, data);
  EXPECT_EQ(data, std::vector<uint8_t>(8));
  driver_.transport().Write(kMmioStatus, {data.data(), 2});
  EXPECT_EQ(Counter("driver_errors"), before + 2);
}

TEST_F(MmioTransportTest, ConfigurationChangesAreAnnounced) {
  driver_.Start();
  driver_.TakeInterrupts();
  uint32_t generation = driver_.Read(kMmioConfigGeneration);
  echo().Change();
  EXPECT_EQ(driver_.TakeInterrupts(), 1u);
  EXPECT_EQ(driver_.Read(kMmioInterruptStatus), kInterruptConfigChange);
  EXPECT_NE(driver_.Read(kMmioConfigGeneration), generation);
  driver_.Write(kMmioInterruptAck, kInterruptConfigChange);
  EXPECT_EQ(driver_.Read(kMmioInterruptStatus), 0u);
}

TEST_F(MmioTransportTest, ResetAbandonsWhatIsUnderWay) {
  driver_.Start();
  const uint8_t bytes[] = {1};
  driver_.AddRequest(1, bytes, {1}, nullptr);
  driver_.Kick(1);
  driver_.Pump();
  EXPECT_EQ(echo().held.size(), 1u);
  driver_.Write(kMmioStatus, 0);
  EXPECT_TRUE(echo().held.empty());
  driver_.Start();
  driver_.Pump();
  EXPECT_FALSE(driver_.TakeUsed(1));
}

TEST_F(MmioTransportTest, GoesOnFromSavedState) {
  driver_.Start();
  driver_.Write(kMmioConfig + 4, 77);
  const uint8_t bytes[] = {1, 2, 3};
  std::vector<uint64_t> in;
  driver_.AddRequest(1, bytes, {3}, nullptr);
  driver_.Kick(1);
  driver_.Pump();
  driver_.AddRequest(0, bytes, {3}, &in);
  driver_.Kick(0);  // not yet looked at
  ASSERT_TRUE(driver_.SaveAndRestore(EchoDevice::Make).ok());
  EXPECT_EQ(driver_.status(),
            kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
  EXPECT_EQ(echo().config.second, 77u);
  EXPECT_TRUE(driver_.WaitUsed(1));
  ASSERT_TRUE(driver_.WaitUsed(0));
  EXPECT_EQ(driver_.Memory(in[0], 3)[2], 3);
}

// Features that were asked for and refused are part of a state like another.
TEST_F(MmioTransportTest, GoesOnAfterFeaturesThatWereRefused) {
  EXPECT_FALSE(driver_.Negotiate(~0ull));
  ASSERT_TRUE(driver_.SaveAndRestore(EchoDevice::Make).ok());
  EXPECT_EQ(driver_.status(), kStatusAcknowledge | kStatusDriver);
  driver_.Write(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk);
  EXPECT_EQ(driver_.status(), kStatusAcknowledge | kStatusDriver);
  EXPECT_TRUE(driver_.Negotiate(kFeatureVersion1));
}

// The interrupt controllers may not have got the edge before their state was taken.
TEST_F(MmioTransportTest, AnInterruptNotAcknowledgedIsSentAgainByTheRestoredDevice) {
  driver_.Start();
  echo().Change();
  driver_.TakeInterrupts();
  ASSERT_TRUE(driver_.SaveAndRestore(EchoDevice::Make).ok());
  EXPECT_EQ(driver_.TakeInterrupts(), 1u);
  EXPECT_EQ(driver_.Read(kMmioInterruptStatus), kInterruptConfigChange);
  driver_.Write(kMmioInterruptAck, kInterruptConfigChange);
  ASSERT_TRUE(driver_.SaveAndRestore(EchoDevice::Make).ok());
  EXPECT_EQ(driver_.TakeInterrupts(), 0u);
}

// Every cut of a valid state is refused with a reason, and so is any other device's.
TEST_F(MmioTransportTest, RefusesOtherStates) {
  driver_.Start();
  StateWriter writer;
  ASSERT_TRUE(driver_.transport().Save(&writer).ok());
  for (size_t size = 0; size < writer.bytes().size(); ++size) {
    FakeDriver other(EchoDevice::Make);
    StateReader reader({writer.bytes().data(), size}, "saved state");
    EXPECT_FALSE(other.transport().Restore(&reader).ok()) << size;
  }
  auto with = [&](size_t at, uint8_t value) {
    std::vector<uint8_t> bytes = writer.bytes();
    bytes[at] ^= value;
    FakeDriver other(EchoDevice::Make);
    StateReader reader(bytes, "saved state");
    Status restored = other.transport().Restore(&reader);
    return restored.ok() ? std::string() : restored.error().message();
  };
  EXPECT_EQ(with(0, 2), "device: transport state of version 3, this is version 1");
  EXPECT_EQ(with(4, 1), "device: saved from device type 43 with 2 queues, this is type 42 with 2");
  EXPECT_EQ(with(8, 1), "device: device state of version 2, this is version 3");
  EXPECT_NE(with(16, 1).find("saved with features"), std::string::npos);
  EXPECT_EQ(with(24, kStatusFeaturesOk | kStatusDriverOk), "device: a queue is ready in status 0x3");
}

}  // namespace
}  // namespace cube::devices::virtio
