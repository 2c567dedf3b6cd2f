#include "vmm/identity.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/control_abi.h"

namespace cube::vmm {
namespace {

class IdentityTest : public ::testing::Test {
 protected:
  const abi::IdentityHeader& header() const {
    return *reinterpret_cast<const abi::IdentityHeader*>(mailbox_ + abi::kIdentityOffset);
  }
  alignas(4096) uint8_t mailbox_[abi::kMailboxSize] = {};
};

TEST_F(IdentityTest, IsWrittenWithTimeAndFreshEntropy) {
  ASSERT_TRUE(WriteIdentity(mailbox_, {"i-1", "box", "secret", {"A=1", "B="}}).ok());
  EXPECT_EQ(header().generation, 1u);
  EXPECT_EQ(header().string_count, 5u);
  EXPECT_EQ(memcmp(mailbox_ + abi::kIdentityOffset + sizeof(abi::IdentityHeader),
                   "i-1\0box\0secret\0A=1\0B=", header().string_bytes),
            0);
  EXPECT_GT(header().realtime_nanoseconds, 1'700'000'000'000'000'000);
  uint8_t before[abi::kEntropySize];
  memcpy(before, header().entropy, sizeof before);
  ASSERT_TRUE(WriteIdentity(mailbox_, {"i-2", "box", "", {}}).ok());
  EXPECT_EQ(header().generation, 2u);
  EXPECT_NE(memcmp(before, header().entropy, sizeof before), 0);
}

TEST_F(IdentityTest, VolumesComeBeforeVariables) {
  ASSERT_TRUE(WriteIdentity(mailbox_, {"i", "b", "", {"A=1"}, {"/x", "/y"}}).ok());
  EXPECT_EQ(header().volume_count, 2u);
  EXPECT_EQ(memcmp(mailbox_ + abi::kIdentityOffset + sizeof(abi::IdentityHeader),
                   "i\0b\0\0/x\0/y\0A=1", header().string_bytes),
            0);
}

TEST_F(IdentityTest, RefusesWhatDoesNotFit) {
  EXPECT_EQ(WriteIdentity(mailbox_, {std::string("a\0b", 3), "", "", {}}).error().message(),
            "a zero byte in a clone's identity");
  EXPECT_NE(WriteIdentity(mailbox_, {"", "", "", {std::string(9000, 'x')}})
                .error()
                .message()
                .find("take 9004 bytes, at most"),
            std::string::npos);
  EXPECT_EQ(header().generation, 0u);
  EXPECT_FALSE(WriteIdentity({mailbox_, 4096}, {}).ok());
}

}  // namespace
}  // namespace cube::vmm
