#include "devices/net/frame_header.h"

#include <linux/if_ether.h>
#include <netinet/in.h>

namespace cube::devices::net {
namespace {

// The features that let a kind of segments pass in one direction.
struct Segments {
  uint64_t tcp4;
  uint64_t tcp6;
  uint64_t ecn;
  uint64_t udp;  // all of them
};
constexpr Segments kFromDriver = {kFeatureHostTso4, kFeatureHostTso6, kFeatureHostEcn,
                                  kFeatureHostUso};
constexpr Segments kToDriver = {kFeatureGuestTso4, kFeatureGuestTso6, kFeatureGuestEcn,
                                kFeatureGuestUso4 | kFeatureGuestUso6};

// Where their checksums are in TCP's and UDP's headers.
constexpr uint16_t kTcpChecksum = 16, kUdpChecksum = 6;

bool Allowed(const Segments& segments, uint64_t features, uint8_t type) {
  bool ecn = (type & kGsoEcn) != 0;
  if (ecn && (features & segments.ecn) == 0) return false;
  switch (type & ~kGsoEcn) {
    case kGsoNone:
      return !ecn;
    case kGsoTcp4:
      return (features & segments.tcp4) != 0;
    case kGsoTcp6:
      return (features & segments.tcp6) != 0;
    case kGsoUdpL4:
      return !ecn && (features & segments.udp) == segments.udp;
    default:
      return false;
  }
}

}  // namespace

bool CheckTransmit(uint64_t features, uint64_t size, Header* header) {
  if (size < kEthernetHeader || size > kMaxFrame) return false;
  header->flags &= kFlagNeedsCsum;  // 5.1.6.2.2: others are ignored
  header->num_buffers = 0;
  bool checksum = header->flags != 0;
  if (checksum) {
    // The 16 bits of the checksum itself, too, lie in the frame.
    uint64_t field = uint64_t{header->csum_start} + header->csum_offset;
    if ((features & kFeatureCsum) == 0 || field + sizeof(uint16_t) > size) return false;
  } else {
    header->csum_start = header->csum_offset = 0;
  }
  if (!Allowed(kFromDriver, features, header->gso_type)) return false;
  if (header->gso_type == kGsoNone) {
    header->gso_size = header->hdr_len = 0;
    return true;
  }
  return checksum && header->gso_size != 0 && header->hdr_len <= size;
}

bool ChecksumIsItsOwn(const Header& header, const FrameStart& start) {
  const uint8_t* bytes = start.bytes;
  if (header.csum_offset != kTcpChecksum && header.csum_offset != kUdpChecksum) return false;
  switch (bytes[12] << 8 | bytes[13]) {
    case ETH_P_IP:
      return header.csum_start == kEthernetHeader + (bytes[14] & 15) * 4;
    case ETH_P_IPV6:
      switch (bytes[20]) {
        case IPPROTO_TCP:
        case IPPROTO_UDP:
          return header.csum_start == kEthernetHeader + 40;
        case IPPROTO_FRAGMENT:
          return header.csum_start == kEthernetHeader + 48;
        default:
          return false;
      }
    default:
      return header.csum_start >= kEthernetHeader;
  }
}

bool CheckReceive(uint64_t features, Header* header) {
  if ((features & kFeatureGuestCsum) == 0) {
    if ((header->flags & kFlagNeedsCsum) != 0) return false;
    header->flags = 0;
  }
  return Allowed(kToDriver, features, header->gso_type);
}

}  // namespace cube::devices::net
