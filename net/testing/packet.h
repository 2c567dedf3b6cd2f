#ifndef CUBE_NET_TESTING_PACKET_H_
#define CUBE_NET_TESTING_PACKET_H_

#include <cstdint>
#include <string_view>
#include <vector>

namespace cube::net::testing {

using Bytes = std::vector<uint8_t>;

inline constexpr uint8_t kTcp = 6, kUdp = 17, kIcmp = 1;
// Of TCP's flags those that segments have.
inline constexpr uint8_t kFin = 0x11, kSyn = 0x02, kSynAck = 0x12, kRst = 0x04, kAck = 0x10;

// "a.b.c.d" in network order.
uint32_t Address(const char* text);

// One frame, put together with right lengths and checksums; what a test wants wrong it changes.
// Ports and numbers are in the host's order, addresses in the network's.
struct Frame {
  uint8_t target_mac[6] = {0x02, 0xcb, 0, 0, 0, 0x16};
  uint8_t source_mac[6] = {0x02, 0xcb, 0, 0, 0, 0x15};
  uint16_t ethertype = 0x0800;
  uint32_t source = 0;
  uint32_t target = 0;
  uint8_t protocol = 6;
  uint8_t ttl = 64;
  uint16_t identifier = 7;
  uint16_t fragment = 0;  // flags and offset in units of 8
  Bytes options;          // IP's
  uint16_t source_port = 0;
  uint16_t target_port = 0;
  uint32_t sequence = 1000;
  uint32_t acknowledged = 0;
  uint8_t flags = 0x02;   // TCP's: SYN
  uint8_t icmp_type = 8;  // with source_port as identifier
  uint8_t icmp_code = 0;
  uint32_t icmp_rest = 0;  // an error's last 32 bits
  bool udp_checksum = true;
  Bytes payload;
  bool raw = false;  // the payload is all there is after IP's header

  Bytes Build() const;
  // From IP's header on.
  Bytes Packet() const;
};

// What a frame says, read by rules of its own; `valid` if all lengths and checksums are right.
struct Seen {
  bool valid = false;
  Bytes target_mac, source_mac;
  uint32_t source = 0, target = 0;
  uint8_t protocol = 0, ttl = 0;
  uint16_t identifier = 0, fragment = 0;
  uint16_t source_port = 0, target_port = 0;
  uint32_t sequence = 0, acknowledged = 0;
  uint8_t flags = 0, icmp_type = 0, icmp_code = 0;
  uint32_t icmp_rest = 0;
  Bytes payload;
};
Seen Read(const Bytes& frame);
// A packet without an Ethernet header; one within an ICMP error may be cut short after 8 bytes.
Seen ReadPacket(const Bytes& packet, bool cut = false);

// A request, or an answer, of RFC 826.
Bytes Arp(uint16_t operation, const uint8_t* sender_mac, uint32_t sender, uint32_t target);

// In network order.
void Put16(Bytes* bytes, uint16_t value);
void Put32(Bytes* bytes, uint32_t value);
void Set16(Bytes* bytes, size_t at, uint16_t value);
// The checksum of RFC 1071, of bytes in the order in which they are sent: what they add to it, and
// what is made of all that.
uint32_t Sum(const Bytes& bytes);
uint16_t Fold(uint32_t sum);
uint16_t Get16(const Bytes& bytes, size_t at);
uint32_t Get32(const Bytes& bytes, size_t at);

}  // namespace cube::net::testing

#endif  // CUBE_NET_TESTING_PACKET_H_
