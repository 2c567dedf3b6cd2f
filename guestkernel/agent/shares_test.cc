#include "guestkernel/agent/shares.h"

#include <gtest/gtest.h>

namespace cube::agent {
namespace {

TEST(Shares, AreFoundAmongTheOtherWords) {
  auto shares = SharesOf(
      "console=ttyS0 cube.share=work quiet  cube.share=data-1.x_:ro "
      "virtio_mmio.device=4K@0xd0:5\n");
  ASSERT_EQ(shares.size(), 2u);
  EXPECT_EQ(shares[0].tag, "work");
  EXPECT_FALSE(shares[0].read_only);
  EXPECT_EQ(shares[1].tag, "data-1.x_");
  EXPECT_TRUE(shares[1].read_only);
}

TEST(Shares, WordsOfAnotherFormAreLeftOut) {
  EXPECT_TRUE(SharesOf("").empty());
  EXPECT_TRUE(SharesOf("cube.share= cube.share=:ro cube.share=.. cube.share=.:ro cube.share=a/b "
                       "xcube.share=a cube.share=a:rw cube.shares=a cube.share")
                  .empty());
}

}  // namespace
}  // namespace cube::agent
