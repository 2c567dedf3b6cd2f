#ifndef CUBE_DEVICES_NET_SPEC_H_
#define CUBE_DEVICES_NET_SPEC_H_

#include <cstdint>

// What virtio 1.2 section 5.1 lays down for network devices.
namespace cube::devices::net {

inline constexpr uint64_t kFeatureCsum = 1ull << 0;
inline constexpr uint64_t kFeatureGuestCsum = 1ull << 1;
inline constexpr uint64_t kFeatureMtu = 1ull << 3;
inline constexpr uint64_t kFeatureMac = 1ull << 5;
inline constexpr uint64_t kFeatureGuestTso4 = 1ull << 7;
inline constexpr uint64_t kFeatureGuestTso6 = 1ull << 8;
inline constexpr uint64_t kFeatureGuestEcn = 1ull << 9;
inline constexpr uint64_t kFeatureHostTso4 = 1ull << 11;
inline constexpr uint64_t kFeatureHostTso6 = 1ull << 12;
inline constexpr uint64_t kFeatureHostEcn = 1ull << 13;
inline constexpr uint64_t kFeatureMergeableBuffers = 1ull << 15;
inline constexpr uint64_t kFeatureStatus = 1ull << 16;
inline constexpr uint64_t kFeatureGuestUso4 = 1ull << 54;
inline constexpr uint64_t kFeatureGuestUso6 = 1ull << 55;
inline constexpr uint64_t kFeatureHostUso = 1ull << 56;

// What a backend may or may not be able to do.
inline constexpr uint64_t kTcpOffloads = kFeatureCsum | kFeatureGuestCsum | kFeatureGuestTso4 |
                                         kFeatureGuestTso6 | kFeatureGuestEcn | kFeatureHostTso4 |
                                         kFeatureHostTso6 | kFeatureHostEcn;
inline constexpr uint64_t kUdpOffloads = kFeatureGuestUso4 | kFeatureGuestUso6 | kFeatureHostUso;

inline constexpr uint32_t kReceiveQueue = 0;
inline constexpr uint32_t kTransmitQueue = 1;

// Before each frame, in both directions (5.1.6).
struct Header {
  uint8_t flags;
  uint8_t gso_type;
  uint16_t hdr_len;
  uint16_t gso_size;
  uint16_t csum_start;
  uint16_t csum_offset;
  uint16_t num_buffers;
};
static_assert(sizeof(Header) == 12);

inline constexpr uint8_t kFlagNeedsCsum = 1;

inline constexpr uint8_t kGsoNone = 0;
inline constexpr uint8_t kGsoTcp4 = 1;
inline constexpr uint8_t kGsoTcp6 = 4;
inline constexpr uint8_t kGsoUdpL4 = 5;
inline constexpr uint8_t kGsoEcn = 0x80;  // beside one of the TCP types

struct Config {
  uint8_t mac[6];
  uint16_t status;
  uint16_t max_virtqueue_pairs;
  uint16_t mtu;
};
static_assert(sizeof(Config) == 12);
inline constexpr uint16_t kStatusLinkUp = 1;

// Ethernet: the shortest frame is a header; the longest a segment of 64 KiB - 1 with a VLAN's tag.
inline constexpr uint32_t kEthernetHeader = 14;
inline constexpr uint32_t kMaxFrameOverhead = kEthernetHeader + 4;
// The longest frame of a network with Ethernet's own MTU.
inline constexpr uint32_t kMaxEthernetFrame = 1500 + kMaxFrameOverhead;
inline constexpr uint32_t kMaxFrame = 65535 + kMaxFrameOverhead;

inline constexpr uint32_t kMinMtu = 68;  // 5.1.4.1
inline constexpr uint32_t kMaxMtu = 65535;
inline constexpr uint32_t kDefaultMtu = 1500;

}  // namespace cube::devices::net

#endif  // CUBE_DEVICES_NET_SPEC_H_
