#include "vmm/cli/share_option.h"

#include <gtest/gtest.h>

namespace cube::vmm {
namespace {

TEST(ShareOption, AllThatCanBeSaid) {
  auto plain = ParseShare("/srv/work:work").value();
  EXPECT_EQ(plain.directory, "/srv/work");
  EXPECT_EQ(plain.tag, "work");
  EXPECT_FALSE(plain.read_only);
  EXPECT_FALSE(plain.host_uid.has_value());
  EXPECT_EQ(plain.guest_uid, 1000u);
  EXPECT_EQ(plain.guest_gid, 1000u);
  EXPECT_TRUE(ParseShare("/x:t:ro").value().read_only);
  EXPECT_EQ(ParseShare("/x:ro").value().tag, "ro");
  auto all = ParseShare("relative/x:t:ro,uid=1,gid=2,guest-uid=3,guest-gid=0").value();
  EXPECT_TRUE(all.read_only);
  EXPECT_EQ(all.host_uid, 1u);
  EXPECT_EQ(all.host_gid, 2u);
  EXPECT_EQ(all.guest_uid, 3u);
  EXPECT_EQ(all.guest_gid, 0u);
}

TEST(ShareOption, AnythingElseIsRefusedByName) {
  for (const char* bad :
       {"", "/x", "/x:", ":t", "/x:a/b", "/x:..", "/x:t:rw", "/x:t:ro:ro",
        "/x:t:uid=", "/x:t:uid=-1", "/x:t:uid=4294967295", "/x:t:uid=99999999999", "/x:t:uid=1x",
        "/x:t:,ro", "/x:t:uid", "/x:1234567890123456789012345678901234567"}) {
    auto share = ParseShare(bad);
    ASSERT_FALSE(share.ok()) << bad;
    EXPECT_EQ(share.error().message().rfind(std::string("--share ") + bad, 0), 0u)
        << share.error().message();
  }
}

TEST(ShareOption, TagsAreDifferent) {
  EXPECT_EQ(ParseShares({"/x:a", "/x:b"}).value().size(), 2u);
  EXPECT_FALSE(ParseShares({"/x:a", "/y:a"}).ok());
}

TEST(ShareOption, TheAgentIsToldOnTheCommandLine) {
  EXPECT_EQ(ShareWords({}), "");
  EXPECT_EQ(ShareWords(ParseShares({"/x:a", "/y:b:ro,uid=5"}).value()),
            "cube.share=a cube.share=b:ro");
}

}  // namespace
}  // namespace cube::vmm
