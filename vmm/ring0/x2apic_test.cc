#include "vmm/ring0/x2apic.h"

#include <gtest/gtest.h>

namespace cube::vmm::ring0 {
namespace {

TEST(X2ApicTest, TargetsOfCommands) {
  EXPECT_EQ(InterruptTargets(0x40000, 2), 0x04u);             // itself
  EXPECT_EQ(InterruptTargets(0x80000, 2), 0xffu);             // all
  EXPECT_EQ(InterruptTargets(0xc0000, 2), 0xfbu);             // all but itself
  EXPECT_EQ(InterruptTargets(0x0000000300000000, 2), 0x08u);  // by number
  EXPECT_EQ(InterruptTargets(0x0000000800000000, 2), 0u);     // which nobody has
  EXPECT_EQ(InterruptTargets(0xffffffff00000000, 2), 0xffu);
  EXPECT_EQ(InterruptTargets(0x0000000500000800, 2), 0x05u);  // by mask
  EXPECT_EQ(InterruptTargets(0x0001000500000800, 2), 0u);     // of another cluster
  EXPECT_EQ(InterruptTargets(0xffffffff00000800, 2), 0xffu);
}

}  // namespace
}  // namespace cube::vmm::ring0
