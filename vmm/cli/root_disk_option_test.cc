#include "vmm/cli/root_disk_option.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

namespace cube::vmm {
namespace {

std::string Parsed(const std::string& text, const std::string& images = "/nowhere") {
  Result<RootDisk> root = ParseRootDisk(text, images);
  return root.ok() ? root->disk + " " + root->kernel_argument : root.error().message();
}

TEST(RootDiskOption, PathsAreTakenAsTheyAre) {
  EXPECT_EQ(Parsed("/a/disk"), "/a/disk:temporary cube.root=/dev/vda");
  EXPECT_EQ(Parsed("./disk:iops=5"), "./disk:iops=5:temporary cube.root=/dev/vda");
  EXPECT_EQ(Parsed("/a:temporary"), "/a:temporary cube.root=/dev/vda");
  EXPECT_EQ(Parsed("/a:overlay=/b"), "/a:overlay=/b cube.root=/dev/vda");
  EXPECT_EQ(Parsed("/a:ro"), "/a:ro cube.root=/dev/vda:ro");
}

TEST(RootDiskOption, NamesAreImagesOfTheFolder) {
  std::string images = ::testing::TempDir() + "/images";
  mkdir(images.c_str(), 0755);
  std::ofstream(images + "/small.ext4") << "image";
  EXPECT_EQ(Parsed("small", images), images + "/small.ext4:temporary cube.root=/dev/vda");
  EXPECT_EQ(Parsed("small:ro", images), images + "/small.ext4:ro cube.root=/dev/vda:ro");
}

TEST(RootDiskOption, ErrorsSayWhatIsWrong) {
  EXPECT_EQ(Parsed("debian"),
            "--rootfs: there is no /nowhere/debian.ext4; 'tools/images.sh debian' builds it");
  EXPECT_EQ(Parsed(""), "--rootfs : a file is missing");
  EXPECT_EQ(Parsed("/a:fast").substr(0, 35), "--rootfs /a:fast: 'fast' is not one");
}

}  // namespace
}  // namespace cube::vmm
