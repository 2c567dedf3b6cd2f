#ifndef CUBE_NET_TESTING_PACKET6_H_
#define CUBE_NET_TESTING_PACKET6_H_

#include "net/network.h"
#include "net/testing/packet.h"

namespace cube::net::testing {

// An address of IPv6 in network order.
bpf::address6 Address6(const char* text);

inline constexpr uint8_t kIcmp6 = 58;

// A frame of IPv6, as Frame is of IPv4.
struct Frame6 {
  uint8_t target_mac[6] = {0x02, 0xcb, 0, 0, 0, 0x16};
  uint8_t source_mac[6] = {0x02, 0xcb, 0, 0, 0, 0x15};
  bpf::address6 source = {};
  bpf::address6 target = {};
  uint8_t protocol = 6;
  uint8_t hops = 64;
  Bytes extension;  // headers before the transport's, of which the first is a `next`
  uint8_t next = 0;
  uint16_t source_port = 0;
  uint16_t target_port = 0;
  uint32_t sequence = 1000;
  uint32_t acknowledged = 0;
  uint8_t flags = 0x02;     // TCP's: SYN
  uint8_t icmp_type = 128;  // with source_port as identifier
  uint8_t icmp_code = 0;
  uint32_t icmp_rest = 0;  // of what is no echo
  bool udp_checksum = true;
  Bytes payload;

  Bytes Build() const;
  // From IP's header on.
  Bytes Packet() const;
  // That fragment of it which has `size` bytes, or what there is, from `offset` on: behind a header
  // of RFC 8200 section 4.5.
  Frame6 Part(size_t offset, size_t size, uint32_t identifier = 7) const;
};

// What a frame says, read by rules of its own; `valid` if its length and checksum are right.
struct Seen6 {
  bool valid = false;
  Bytes target_mac, source_mac;
  bpf::address6 source = {}, target = {};
  uint8_t protocol = 0, hops = 0;
  uint16_t source_port = 0, target_port = 0;
  uint32_t sequence = 0, acknowledged = 0;
  uint8_t flags = 0, icmp_type = 0, icmp_code = 0;
  uint32_t icmp_rest = 0;
  uint32_t identifier = 0;  // of a fragment
  uint16_t fragment = 0;    // its offset in bytes, and 1 if more come
  Bytes payload;
};
Seen6 Read6(const Bytes& frame);
// A packet without an Ethernet header; one within an ICMPv6 error may be cut short.
Seen6 ReadPacket6(const Bytes& packet, bool cut = false);

// The packet of fragments that lie one behind the other; empty if they do not.
Bytes Assemble6(const std::vector<Bytes>& frames);

// A solicitation of RFC 4861, with the asker's MAC as its option.
Frame6 Solicitation(const char* asker, const char* wanted);

}  // namespace cube::net::testing

#endif  // CUBE_NET_TESTING_PACKET6_H_
