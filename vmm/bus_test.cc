#include "vmm/bus.h"

#include <gtest/gtest.h>

#include <array>

namespace cube::vmm {
namespace {

class Recorder : public BusDevice {
 public:
  void Read(uint64_t offset, std::span<uint8_t> data) override {
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(offset);
  }
  void Write(uint64_t offset, std::span<const uint8_t> data) override {
    last_offset = offset;
    last_size = data.size();
  }
  uint64_t last_offset = ~0ull;
  size_t last_size = 0;
};

TEST(Bus, RoutesByRangeAndGivesOffsets) {
  Recorder low, high;
  Bus bus;
  ASSERT_TRUE(bus.Attach(0x3f8, 8, &high).ok());
  ASSERT_TRUE(bus.Attach(0x60, 5, &low).ok());
  std::array<uint8_t, 2> data = {};
  bus.Read(0x3fb, data);
  EXPECT_EQ(data[1], 3);
  bus.Write(0x64, data);
  EXPECT_EQ(low.last_offset, 4u);
  EXPECT_EQ(low.last_size, 2u);
  EXPECT_EQ(high.last_size, 0u);
}

TEST(Bus, NobodyReadsAsOnes) {
  Recorder device;
  Bus bus;
  ASSERT_TRUE(bus.Attach(0x100, 1, &device).ok());
  for (uint64_t address : {0ull, 0xffull, 0x101ull, ~0ull}) {
    std::array<uint8_t, 1> data = {};
    bus.Read(address, data);
    EXPECT_EQ(data[0], 0xff);
    bus.Write(address, data);
  }
  EXPECT_EQ(device.last_size, 0u);
}

TEST(Bus, RefusesOverlapsAndNonsense) {
  Recorder device;
  Bus bus;
  ASSERT_TRUE(bus.Attach(0x100, 0x10, &device).ok());
  EXPECT_EQ(bus.Attach(0x10f, 1, &device).error().message(),
            "bus range at 0x10f of 0x1 bytes is taken");
  EXPECT_FALSE(bus.Attach(0xf8, 9, &device).ok());
  EXPECT_TRUE(bus.Attach(0xf8, 8, &device).ok());
  EXPECT_TRUE(bus.Attach(0x110, 1, &device).ok());
  EXPECT_FALSE(bus.Attach(~0ull, 2, &device).ok());
  EXPECT_FALSE(bus.Attach(0, 0, &device).ok());
}

}  // namespace
}  // namespace cube::vmm
