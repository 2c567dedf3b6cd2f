#include "vmm/loader/decompress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "vmm/loader/test_images.h"

namespace cube::vmm {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using testing::Image;

constexpr uint64_t kLimit = 64 << 20;

struct Packer {
  const char* name;
  Image (*pack)(std::span<const uint8_t> data);
};

Image Sample(size_t size) {
  Image data(size);
  uint32_t state = 1;
  for (size_t i = 0; i < size; ++i) {
    // Half noise, half runs: several blocks of every format.
    state = state * 1664525 + 1013904223;
    data[i] = i / 4096 % 2 == 0 ? static_cast<uint8_t>(state >> 24) : static_cast<uint8_t>(i >> 16);
  }
  return data;
}

std::string ErrorOf(std::span<const uint8_t> packed, uint64_t limit = kLimit) {
  Result<DecompressedImage> image = Decompress(packed, limit);
  return image.ok() ? "no error" : image.error().message();
}

void ExpectGives(std::span<const uint8_t> packed, const Image& data, uint64_t limit = kLimit) {
  Result<DecompressedImage> image = Decompress(packed, limit);
  ASSERT_TRUE(image.ok()) << image.error().message();
  ASSERT_EQ(image->bytes().size(), data.size());
  EXPECT_EQ(memcmp(image->bytes().data(), data.data(), data.size()), 0);
}

class DecompressEach : public ::testing::TestWithParam<Packer> {};

TEST_P(DecompressEach, GivesBackWhatWasPacked) {
  for (size_t size : {1u, 5000u, 1u << 20}) {
    SCOPED_TRACE(size);
    Image data = Sample(size);
    ExpectGives(GetParam().pack(data), data);
  }
}

TEST_P(DecompressEach, LengthAppendedByTheLinuxBuildIsIgnored) {
  Image data = Sample(100000);
  ExpectGives(testing::WithLength(GetParam().pack(data), data), data);
}

TEST_P(DecompressEach, OutputMayReachTheLimitButNotPassIt) {
  Image data(100000, 0);
  Image packed = GetParam().pack(data);
  ExpectGives(packed, data, data.size());
  EXPECT_EQ(ErrorOf(packed, data.size() - 1),
            std::string(GetParam().name) + " data gives more than the limit of 99999 bytes");
}

TEST_P(DecompressEach, BombEndsAtTheLimit) {
  Image packed = GetParam().pack(Image(32 << 20, 0));
  EXPECT_THAT(ErrorOf(packed, 1 << 20), HasSubstr("limit of 1048576 bytes"));
}

TEST_P(DecompressEach, TruncatedDataIsAnErrorThatSaysSo) {
  Image data = Sample(20000);
  Image packed = GetParam().pack(data);
  for (size_t size : {packed.size() - 1, packed.size() / 2, size_t{13}}) {
    SCOPED_TRACE(size);
    std::string error = ErrorOf(std::span(packed).first(size));
    EXPECT_THAT(error, HasSubstr("truncated"));
    EXPECT_THAT(error, HasSubstr(GetParam().name));
  }
}

TEST_P(DecompressEach, SpoiledBytesNeverPassTheLimitOrAreSilent) {
  constexpr uint64_t kSmallLimit = 1 << 20;
  Image packed = GetParam().pack(Sample(6000));
  for (size_t i = 0; i < packed.size(); i += 7) {
    SCOPED_TRACE(i);
    Image spoiled = packed;
    spoiled[i] ^= 0x55;
    Result<DecompressedImage> image = Decompress(spoiled, kSmallLimit);
    // Not every spoiled byte is noticed: the legacy lz4 frame has no checksum.
    if (image.ok()) {
      EXPECT_LE(image->bytes().size(), kSmallLimit);
    } else {
      EXPECT_FALSE(image.error().message().empty());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, DecompressEach,
                         ::testing::Values(Packer{"lz4", testing::PackLz4},
                                           Packer{"gzip", testing::PackGzip},
                                           Packer{"zstd", testing::PackZstd},
                                           Packer{"xz", testing::PackXz}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Decompress, Lz4OfSeveralBlocksAndFrames) {
  Image data(20 << 20, 'x');
  Image packed = testing::PackLz4(data);
  ExpectGives(testing::WithLength(packed, data), data);
  Image twice = packed;
  twice.insert(twice.end(), packed.begin(), packed.end());
  data.insert(data.end(), data.begin(), data.begin() + (20 << 20));
  ExpectGives(twice, data);
}

TEST(Decompress, Lz4BlockOfAbsurdSizeIsNamed) {
  Image packed = {0x02, 0x21, 0x4c, 0x18, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3, 4};
  EXPECT_EQ(ErrorOf(packed),
            "corrupt lz4 data: block of 2147483647 bytes at byte 8, at most 8421520 are possible");
}

TEST(Decompress, CorruptDataIsNamed) {
  Image data(50000, 'x');
  Image lz4 = testing::PackLz4(data);
  memset(lz4.data() + 8, 0xff, lz4.size() - 8);
  EXPECT_THAT(ErrorOf(lz4), HasSubstr("corrupt lz4 data: bad block of"));
  Image gzip = testing::PackGzip(data);
  gzip[gzip.size() - 6] ^= 1;
  EXPECT_THAT(ErrorOf(gzip), HasSubstr("corrupt gzip data at byte"));
  Image zstd = testing::PackZstd(data);
  zstd[4] ^= 8;  // a bit of the frame header that must be zero
  EXPECT_THAT(ErrorOf(zstd), HasSubstr("zstd data"));
  Image xz = testing::PackXz(data);
  xz[20] ^= 1;
  EXPECT_THAT(ErrorOf(xz), HasSubstr("corrupt xz data at byte"));
}

TEST(Decompress, FormatsThatAreNotSupportedAreNamed) {
  const struct {
    const char* name;
    Image start;
  } cases[] = {
      {"bzip2", {'B', 'Z', 'h', '9'}},
      {"lzma", {0x5d, 0, 0, 0x80, 0}},
      {"lzo", {0x89, 'L', 'Z', 'O', 0, 0x0d, 0x0a}},
      {"lz4 (not in the legacy frame)", {0x04, 0x22, 0x4d, 0x18, 0x60}},
  };
  for (const auto& one : cases) {
    Image data = one.start;
    data.resize(100);
    EXPECT_EQ(ErrorOf(data), std::string("compressed with ") + one.name +
                                 "; lz4, gzip, zstd and xz are supported");
  }
}

TEST(Decompress, UnknownDataIsShown) {
  EXPECT_EQ(ErrorOf(Image{0xde, 0xad}), "compressed in an unknown format (begins with de ad)");
  EXPECT_EQ(ErrorOf({}), "compressed in an unknown format (begins with nothing)");
}

TEST(Decompress, AbsurdLimitIsAnError) {
  EXPECT_THAT(ErrorOf(testing::PackLz4(Image(10)), ~uint64_t{0}),
              HasSubstr("limit of 18446744073709551615 bytes"));
  EXPECT_THAT(ErrorOf(testing::PackLz4(Image(10)), 0), HasSubstr("limit of 0 bytes"));
}

TEST(Decompress, XzThatWantsTooMuchMemoryIsAnError) {
  // A stream header and a block header whose LZMA2 dictionary is of 4 GiB (code 40), from the xz
  // file format; the block header's CRC32 is as it must be.
  Image data = {0xfd, '7', 'z', 'X', 'Z', 0, 0, 1, 0x69, 0x22, 0xde, 0x36,
                0x02, 0x00, 0x21, 0x01, 40, 0x00, 0x00, 0x00, 0, 0, 0, 0};
  uint32_t crc = 0xffffffff;
  for (size_t i = 12; i < 20; ++i) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  crc = ~crc;
  memcpy(data.data() + 20, &crc, sizeof crc);
  data.resize(100);
  EXPECT_THAT(ErrorOf(data),
              MatchesRegex("xz data needs 4[0-9]{9} bytes of memory to decode, "
                           "at most 201326592 are given"));
}

}  // namespace
}  // namespace cube::vmm
