#include "vmm/assist/boot_ticks.h"

#include <gtest/gtest.h>

namespace cube::vmm {
namespace {

constexpr uint64_t kKhz = 2500000;
constexpr uint64_t kNow = 1000000000000;

uint64_t Postponed(uint64_t deadline) { return BootTicks::Postpone(deadline, kNow, kKhz); }

TEST(BootTicks, ATickIsPutOff) {
  EXPECT_EQ(Postponed(kNow + 1), kNow + 300 * kKhz);
  EXPECT_EQ(Postponed(kNow + 10 * kKhz), kNow + 300 * kKhz);
  EXPECT_EQ(Postponed(kNow - 5), kNow + 300 * kKhz) << "already due";
}

TEST(BootTicks, AWaitIsNot) {
  EXPECT_EQ(Postponed(kNow + 10 * kKhz + 1), kNow + 10 * kKhz + 1);
  EXPECT_EQ(Postponed(kNow + 5000 * kKhz), kNow + 5000 * kKhz);
}

TEST(BootTicks, ZeroStaysZero) { EXPECT_EQ(Postponed(0), 0u); }

TEST(BootTicks, AnUnknownFrequencyChangesNothing) {
  EXPECT_EQ(BootTicks::Postpone(kNow + 1, kNow, 0), kNow + 1);
}

}  // namespace
}  // namespace cube::vmm
