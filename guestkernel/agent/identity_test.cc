#include "guestkernel/agent/identity.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/control_abi.h"

namespace cube::agent {
namespace {

class IdentityTest : public ::testing::Test {
 protected:
  abi::IdentityHeader& header() {
    return *reinterpret_cast<abi::IdentityHeader*>(mailbox_ + abi::kIdentityOffset);
  }
  void Fill(const std::string& packed, uint32_t count) {
    header().string_count = count;
    header().string_bytes = static_cast<uint32_t>(packed.size());
    memcpy(mailbox_ + abi::kIdentityOffset + sizeof(abi::IdentityHeader), packed.data(),
           packed.size());
  }
  std::string Reason() {
    auto parsed = Identity::Parse(mailbox_);
    return parsed.ok() ? "" : parsed.error().message();
  }
  alignas(4096) uint8_t mailbox_[abi::kMailboxSize] = {};
};

TEST_F(IdentityTest, ReadsAllStrings) {
  using namespace std::string_literals;
  Fill("i-1\0box\0\0A=1\0"s, 4);
  header().entropy[63] = 9;
  Identity identity = Identity::Parse(mailbox_).value();
  EXPECT_EQ(identity.sandbox_id, "i-1");
  EXPECT_EQ(identity.hostname, "box");
  EXPECT_EQ(identity.access_token, "");
  EXPECT_EQ(identity.environment, std::vector<std::string>{"A=1"});
  EXPECT_EQ(identity.entropy[63], 9);
}

TEST_F(IdentityTest, DefaultsOfClientsAreNoVariablesOfPrograms) {
  using namespace std::string_literals;
  Fill(
      "i-1\0box\0\0CUBE_DEFAULT_USER=app:web\0A=1\0CUBE_DEFAULT_WORKDIR=/a b\0CUBE_DEFAULT_USERS=x\0"s,
      7);
  Identity identity = Identity::Parse(mailbox_).value();
  EXPECT_EQ(identity.default_user, "app:web");
  EXPECT_EQ(identity.default_workdir, "/a b");
  EXPECT_EQ(identity.environment, (std::vector<std::string>{"A=1", "CUBE_DEFAULT_USERS=x"}));
}

TEST_F(IdentityTest, VolumesComeBeforeVariables) {
  using namespace std::string_literals;
  Fill("i-1\0box\0\0/data\0/x=y\0A=1\0"s, 6);
  header().volume_count = 2;
  Identity identity = Identity::Parse(mailbox_).value();
  EXPECT_EQ(identity.volumes, (std::vector<std::string>{"/data", "/x=y"}));
  EXPECT_EQ(identity.environment, std::vector<std::string>{"A=1"});
  header().volume_count = 4;
  EXPECT_EQ(Reason(), "identity with 4 volumes in 6 strings");
  header().volume_count = 9;
  EXPECT_EQ(Reason(), "identity with 9 volumes in 6 strings");
}

TEST_F(IdentityTest, RefusesWhatMakesNoSense) {
  using namespace std::string_literals;
  EXPECT_EQ(Reason(), "identity of 0 strings where 0 are announced");
  Fill("a\0b\0"s, 2);
  EXPECT_EQ(Reason(), "identity of 2 strings where 2 are announced");
  Fill("a\0b\0c\0"s, 4);
  EXPECT_EQ(Reason(), "identity of 3 strings where 4 are announced");
  Fill("a\0b\0c"s, 3);
  EXPECT_EQ(Reason(), "identity does not end with a zero byte");
  header().string_bytes = 0x10000;
  EXPECT_NE(Reason().find("identity of 65536 bytes, at most"), std::string::npos);
}

}  // namespace
}  // namespace cube::agent
