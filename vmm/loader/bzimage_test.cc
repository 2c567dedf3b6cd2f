#include "vmm/loader/bzimage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmm/loader/test_images.h"

namespace cube::vmm {
namespace {

using testing::Image;

std::string ErrorOf(std::span<const uint8_t> file) {
  Result<BzImage> image = ParseBzImage(file);
  return image.ok() ? "no error" : image.error().message();
}

TEST(BzImage, FindsPayloadAndHeader) {
  Image payload(1000, 0xab);
  Image file = testing::MakeBzImage(payload);
  ASSERT_TRUE(IsBzImage(file));
  Result<BzImage> image = ParseBzImage(file);
  ASSERT_TRUE(image.ok()) << image.error().message();
  EXPECT_EQ(Image(image->payload.begin(), image->payload.end()), payload);
  EXPECT_EQ(image->header.version, 0x020f);
  EXPECT_EQ(image->header.cmdline_size, 2047u);
}

TEST(BzImage, NoSetupSectorsStandForFour) {
  Image file = testing::MakeBzImage(Image(10, 1));
  testing::SetupHeader(file).setup_sects = 0;
  file.insert(file.begin() + 1024, 3 * 512, 0);
  Result<BzImage> image = ParseBzImage(file);
  ASSERT_TRUE(image.ok()) << image.error().message();
  EXPECT_EQ(image->payload.front(), 1);
  EXPECT_EQ(image->payload.size(), 10u);
}

TEST(BzImage, FieldsBehindAShorterHeaderAreZero) {
  Image file = testing::MakeBzImage(Image(10, 1));
  setup_header& header = testing::SetupHeader(file);
  header.kernel_info_offset = 0x12345678;
  // The header of 2.08 ends before setup_data.
  size_t end = offsetof(setup_header, setup_data) + 0x1f1;
  header.jump = static_cast<uint16_t>(0xeb | (end - 0x202) << 8);
  header.version = 0x0208;
  Result<BzImage> image = ParseBzImage(file);
  ASSERT_TRUE(image.ok()) << image.error().message();
  EXPECT_EQ(image->header.kernel_info_offset, 0u);
  EXPECT_EQ(image->header.payload_length, 10u);
}

TEST(BzImage, OtherFilesAreNone) {
  EXPECT_FALSE(IsBzImage({}));
  EXPECT_FALSE(IsBzImage(Image(0x205)));
  EXPECT_FALSE(IsBzImage(testing::MakeVmlinux()));
  Image file = testing::MakeBzImage(Image(10));
  testing::SetupHeader(file).boot_flag = 0;
  EXPECT_FALSE(IsBzImage(file));
  EXPECT_EQ(ErrorOf(file), "no Linux boot header");
}

TEST(BzImage, OldBootProtocolIsNamed) {
  Image file = testing::MakeBzImage(Image(10));
  testing::SetupHeader(file).version = 0x0207;
  EXPECT_EQ(ErrorOf(file), "boot protocol 2.07 is too old, 2.08 is the least that is supported");
}

TEST(BzImage, TruncatedFilesAreErrors) {
  Image file = testing::MakeBzImage(Image(10));
  EXPECT_EQ(ErrorOf(std::span(file).first(0x206)),
            "truncated: the boot header ends at byte 620, the file has 518");
  EXPECT_EQ(ErrorOf(std::span(file).first(file.size() - 1)),
            "truncated: the compressed kernel ends at byte 1066, the file has 1065");
}

TEST(BzImage, PayloadFieldsCannotOverflow) {
  Image file = testing::MakeBzImage(Image(10));
  testing::SetupHeader(file).setup_sects = 0xff;
  testing::SetupHeader(file).payload_offset = 0xffffffff;
  testing::SetupHeader(file).payload_length = 0xffffffff;
  EXPECT_EQ(ErrorOf(file),
            "truncated: the compressed kernel ends at byte 8590065662, the file has 1066");
}

TEST(BzImage, EmptyPayloadIsAnError) {
  Image file = testing::MakeBzImage({});
  EXPECT_EQ(ErrorOf(file), "the compressed kernel has a length of 0 bytes");
}

}  // namespace
}  // namespace cube::vmm
