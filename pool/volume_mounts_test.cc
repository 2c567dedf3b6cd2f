#include "pool/volume_mounts.h"

#include <gtest/gtest.h>

namespace cube::pool {
namespace {

std::string ReasonOf(const std::string& path) {
  auto checked = CheckVolumeMounts({{"id", "v", path}});
  return checked.ok() ? "" : checked.refusal().message;
}

TEST(VolumeMounts, PathsHaveOneForm) {
  auto mounts = CheckVolumeMounts({{"1", "a", "/x//y/"}, {"2", "b", "/x/./z"}, {"3", "c", "/x"}});
  ASSERT_TRUE(mounts.ok());
  // Those above come first: a mount hides what is beneath it.
  EXPECT_EQ(*mounts,
            (std::vector<VolumeMount>{{"3", "c", "/x"}, {"1", "a", "/x/y"}, {"2", "b", "/x/z"}}));
}

TEST(VolumeMounts, PathsThatCannotBe) {
  EXPECT_EQ(ReasonOf("data"), "a volume's path is not absolute: \"data\"");
  EXPECT_EQ(ReasonOf(""), "a volume's path is not absolute: \"\"");
  EXPECT_EQ(ReasonOf("/a/../b"), "a volume's path has \"..\": \"/a/../b\"");
  EXPECT_EQ(ReasonOf("/"), "a volume cannot be mounted at \"/\"");
  EXPECT_EQ(ReasonOf("/./"), "a volume cannot be mounted at \"/\"");
  EXPECT_EQ(ReasonOf("/proc"), "a volume cannot be mounted at \"/proc\": /proc is the kernel's");
  EXPECT_NE(ReasonOf("//dev/shm"), "");
  EXPECT_EQ(ReasonOf("/devices"), "");
  EXPECT_NE(ReasonOf("/" + std::string(1024, 'x')), "");
  EXPECT_NE(ReasonOf(std::string("/a\0b", 4)), "");
  EXPECT_NE(ReasonOf("/\xff"), "");
}

TEST(VolumeMounts, APathIsTakenOnce) {
  auto twice = CheckVolumeMounts({{"1", "a", "/x"}, {"2", "b", "/x/"}});
  ASSERT_FALSE(twice.ok());
  EXPECT_EQ(twice.refusal().message, "two volumes at one path: \"/x\"");
  EXPECT_TRUE(CheckVolumeMounts({{"1", "a", "/x"}, {"1", "a", "/y"}}).ok());
}

TEST(VolumeMounts, ASnapshotsStayWhereTheyAre) {
  const std::vector<VolumeMount> saved = {{"1", "a", "/x"}, {"2", "b", "/b"}};
  auto all = AddVolumeMounts(saved, {{"3", "c", "/a"}, {"1", "a", "/x"}});
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(*all, (std::vector<VolumeMount>{{"1", "a", "/x"}, {"2", "b", "/b"}, {"3", "c", "/a"}}));
  auto other = AddVolumeMounts(saved, {{"3", "c", "/x"}});
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.refusal().message, "the snapshot has another volume, \"a\", at \"/x\"");
}

TEST(VolumeMounts, AsManyAsThereAreDevices) {
  const std::vector<VolumeMount> two = {{"1", "a", "/x"}, {"2", "b", "/b"}};
  EXPECT_TRUE(CheckVolumeCount(two, 2, "template t").ok());
  EXPECT_EQ(CheckVolumeCount(two, 1, "template t").refusal().message,
            "2 volumes, template t has devices for 1 (template build --volumes)");
  EXPECT_NE(CheckVolumeCount(two, 0, "template t").refusal().message.find("built anew"),
            std::string::npos);
  EXPECT_TRUE(CheckVolumeCount({}, 0, "template t").ok());
}

}  // namespace
}  // namespace cube::pool
