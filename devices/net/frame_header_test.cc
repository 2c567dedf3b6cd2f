#include "devices/net/frame_header.h"

#include <gtest/gtest.h>

namespace cube::devices::net {
namespace {

constexpr uint64_t kAll = kFeatureCsum | kFeatureHostTso4 | kFeatureHostTso6 | kFeatureHostEcn |
                          kFeatureHostUso | kFeatureGuestCsum | kFeatureGuestTso4 |
                          kFeatureGuestTso6 | kFeatureGuestEcn | kFeatureGuestUso4 |
                          kFeatureGuestUso6;
// A segment of TCP over IPv4 of 4 KiB.
constexpr uint64_t kSize = 4096;
constexpr Header kSegment = {kFlagNeedsCsum, kGsoTcp4, 54, 1448, 34, 16, 0};

bool Sends(uint64_t features, Header header, uint64_t size = kSize) {
  return CheckTransmit(features, size, &header);
}

TEST(FrameHeader, WhatLinuxSendsPasses) {
  EXPECT_TRUE(Sends(kAll, {}));
  EXPECT_TRUE(Sends(0, {}, kEthernetHeader));
  EXPECT_TRUE(Sends(kAll, {kFlagNeedsCsum, kGsoNone, 0, 0, 34, 16, 0}));
  EXPECT_TRUE(Sends(kAll, kSegment));
  EXPECT_TRUE(Sends(kAll, {kFlagNeedsCsum, kGsoTcp6, 74, 1428, 54, 16, 0}, kMaxFrame));
  EXPECT_TRUE(Sends(kAll, {kFlagNeedsCsum, kGsoTcp4 | kGsoEcn, 54, 1448, 34, 16, 0}));
  EXPECT_TRUE(Sends(kAll, {kFlagNeedsCsum, kGsoUdpL4, 42, 1400, 34, 6, 0}));
}

TEST(FrameHeader, SizesAreBounded) {
  EXPECT_FALSE(Sends(kAll, {}, 0));
  EXPECT_FALSE(Sends(kAll, {}, kEthernetHeader - 1));
  EXPECT_FALSE(Sends(kAll, {}, kMaxFrame + 1));
  EXPECT_FALSE(Sends(kAll, {}, ~uint64_t{0}));
}

TEST(FrameHeader, AChecksumOutsideTheFrameIsRefused) {
  EXPECT_TRUE(Sends(kAll, {kFlagNeedsCsum, 0, 0, 0, 4080, 14, 0}));
  EXPECT_FALSE(Sends(kAll, {kFlagNeedsCsum, 0, 0, 0, 4080, 15, 0}));
  EXPECT_FALSE(Sends(kAll, {kFlagNeedsCsum, 0, 0, 0, 4096, 0, 0}));
  EXPECT_FALSE(Sends(kAll, {kFlagNeedsCsum, 0, 0, 0, 0xffff, 0xffff, 0}));
}

// A frame of that type whose IPv4 header has `words`, or whose IPv6 header says `next`.
FrameStart Start(uint16_t type, uint8_t words, uint8_t next) {
  FrameStart start = {};
  start.bytes[12] = static_cast<uint8_t>(type >> 8);
  start.bytes[13] = static_cast<uint8_t>(type);
  start.bytes[14] = type == 0x86dd ? 0x60 : static_cast<uint8_t>(0x40 | words);
  start.bytes[20] = next;
  return start;
}

TEST(FrameHeader, AChecksumIsThatOfTheTransport) {
  const struct {
    uint16_t type;
    uint8_t words, next;
    uint16_t start;
  } kRight[] = {{0x800, 5, 0, 34},
                {0x800, 15, 0, 74},
                {0x86dd, 0, 6, 54},
                {0x86dd, 0, 17, 54},
                {0x86dd, 0, 44, 62}};
  for (const auto& each : kRight) {
    FrameStart frame = Start(each.type, each.words, each.next);
    for (uint16_t at = 0; at < 100; ++at) {
      for (uint16_t offset = 0; offset < 100; ++offset) {
        Header header = {kFlagNeedsCsum, 0, 0, 0, at, offset, 0};
        bool is_right = at == each.start && (offset == 6 || offset == 16);
        EXPECT_EQ(ChecksumIsItsOwn(header, frame), is_right) << at << " " << offset;
      }
    }
  }
  // Behind headers of IPv6 that nobody looks through, and in Ethernet's own, nothing is written.
  const Header header = {kFlagNeedsCsum, 0, 0, 0, 54, 16, 0};
  EXPECT_FALSE(ChecksumIsItsOwn(header, Start(0x86dd, 0, 0)));
  EXPECT_FALSE(ChecksumIsItsOwn({kFlagNeedsCsum, 0, 0, 0, 6, 6, 0}, Start(0x8100, 0, 0)));
  EXPECT_TRUE(ChecksumIsItsOwn({kFlagNeedsCsum, 0, 0, 0, 38, 16, 0}, Start(0x8100, 0, 0)));
}

TEST(FrameHeader, SegmentsThatLieAreRefused) {
  Header header = kSegment;
  header.gso_size = 0;
  EXPECT_FALSE(Sends(kAll, header));
  header = kSegment;
  header.hdr_len = 4097;
  EXPECT_FALSE(Sends(kAll, header));
  header = kSegment;
  header.flags = 0;  // 5.1.6.2: segments need their checksums made
  EXPECT_FALSE(Sends(kAll, header));
  for (uint8_t type : {2, 3, 6, 0x7f, 0x80, 0x83, 0x85}) {
    header = kSegment;
    header.gso_type = type;
    EXPECT_FALSE(Sends(kAll, header)) << int{type};
  }
}

TEST(FrameHeader, WhatWasNotNegotiatedIsRefused) {
  EXPECT_FALSE(Sends(kAll & ~kFeatureCsum, {kFlagNeedsCsum, 0, 0, 0, 34, 16, 0}));
  EXPECT_FALSE(Sends(kAll & ~kFeatureHostTso4, kSegment));
  Header header = kSegment;
  header.gso_type = kGsoTcp6;
  EXPECT_FALSE(Sends(kAll & ~kFeatureHostTso6, header));
  header.gso_type = kGsoTcp4 | kGsoEcn;
  EXPECT_FALSE(Sends(kAll & ~kFeatureHostEcn, header));
  header.gso_type = kGsoUdpL4;
  EXPECT_FALSE(Sends(kAll & ~kFeatureHostUso, header));
}

TEST(FrameHeader, WhatMeansNothingIsCleared) {
  Header header = {0xfe, kGsoNone, 9, 9, 9, 9, 9};
  ASSERT_TRUE(CheckTransmit(kAll, kSize, &header));
  EXPECT_EQ(header.flags | header.hdr_len | header.gso_size | header.csum_start |
                header.csum_offset | header.num_buffers,
            0);
}

TEST(FrameHeader, TheDriverGetsOnlyWhatItNegotiated) {
  Header header = kSegment;
  EXPECT_TRUE(CheckReceive(kAll, &header));
  EXPECT_FALSE(CheckReceive(kAll & ~kFeatureGuestTso4, &header));
  EXPECT_FALSE(CheckReceive(kAll & ~kFeatureGuestCsum, &header));
  header = {2, kGsoNone, 0, 0, 0, 0, 0};  // DATA_VALID
  EXPECT_TRUE(CheckReceive(0, &header));
  EXPECT_EQ(header.flags, 0);
  header = {kFlagNeedsCsum, kGsoUdpL4, 42, 1400, 34, 6, 0};
  EXPECT_TRUE(CheckReceive(kAll, &header));
  EXPECT_FALSE(CheckReceive(kAll & ~kFeatureGuestUso6, &header));
}

}  // namespace
}  // namespace cube::devices::net
