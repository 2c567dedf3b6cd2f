#include "net/testing/packet6.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

namespace cube::net::testing {
namespace {

constexpr size_t kHeader = 40, kFragmentHeader = 8;
constexpr uint8_t kFragment = 44, kNothing = 59;

void PutAddress(Bytes* bytes, const bpf::address6& address) {
  for (uint32_t word : address.words) Put32(bytes, ntohl(word));
}

bpf::address6 GetAddress(const Bytes& bytes, size_t at) {
  bpf::address6 address;
  for (size_t i = 0; i < 4; ++i) address.words[i] = htonl(Get32(bytes, at + 4 * i));
  return address;
}

uint32_t PseudoHeader(const bpf::address6& source, const bpf::address6& target, uint8_t protocol,
                      size_t size) {
  Bytes bytes;
  PutAddress(&bytes, source);
  PutAddress(&bytes, target);
  Put32(&bytes, static_cast<uint32_t>(size));
  Put32(&bytes, protocol);
  return Sum(bytes);
}

}  // namespace

bpf::address6 Address6(const char* text) {
  bpf::address6 address = {};
  inet_pton(AF_INET6, text, &address);
  return address;
}

Bytes Frame6::Packet() const {
  Bytes l4;
  size_t check = 0;
  if (protocol == 6) {
    Put16(&l4, source_port);
    Put16(&l4, target_port);
    Put32(&l4, sequence);
    Put32(&l4, acknowledged);
    l4.push_back(5 << 4);
    l4.push_back(flags);
    Put16(&l4, 65535);
    Put32(&l4, 0);
    check = 16;
  } else if (protocol == 17) {
    Put16(&l4, source_port);
    Put16(&l4, target_port);
    Put16(&l4, static_cast<uint16_t>(8 + payload.size()));
    Put16(&l4, 0);
    check = udp_checksum ? 6 : 0;
  } else if (protocol == kIcmp6) {
    l4.push_back(icmp_type);
    l4.push_back(icmp_code);
    Put16(&l4, 0);
    bool is_echo = icmp_type == 128 || icmp_type == 129;
    Put32(&l4, is_echo ? static_cast<uint32_t>(source_port) << 16 | 1 : icmp_rest);
    check = 2;
  }
  l4.insert(l4.end(), payload.begin(), payload.end());
  uint32_t pseudo = PseudoHeader(source, target, protocol, l4.size());
  if (check != 0) Set16(&l4, check, Fold(Sum(l4) + pseudo));
  Bytes ip;
  Put32(&ip, 0x60000000);
  Put16(&ip, static_cast<uint16_t>(extension.size() + l4.size()));
  ip.push_back(extension.empty() ? protocol : next);
  ip.push_back(hops);
  PutAddress(&ip, source);
  PutAddress(&ip, target);
  ip.insert(ip.end(), extension.begin(), extension.end());
  ip.insert(ip.end(), l4.begin(), l4.end());
  return ip;
}

Bytes Frame6::Build() const {
  Bytes frame(target_mac, target_mac + 6);
  frame.insert(frame.end(), source_mac, source_mac + 6);
  Put16(&frame, 0x86dd);
  Bytes packet = Packet();
  frame.insert(frame.end(), packet.begin(), packet.end());
  return frame;
}

Frame6 Frame6::Part(size_t offset, size_t size, uint32_t identifier) const {
  Bytes whole = Packet();
  size_t from = kHeader + extension.size() + offset;
  size_t end = std::min(whole.size(), from + size);
  Frame6 part = *this;
  part.protocol = kNothing;
  part.next = kFragment;
  part.extension = {protocol, 0};
  Put16(&part.extension, static_cast<uint16_t>(offset | (end < whole.size() ? 1 : 0)));
  Put32(&part.extension, identifier);
  part.payload.assign(whole.begin() + static_cast<long>(from),
                      whole.begin() + static_cast<long>(end));
  return part;
}

Bytes Assemble6(const std::vector<Bytes>& frames) {
  Bytes packet;
  for (const Bytes& frame : frames) {
    constexpr size_t kData = 14 + kHeader + kFragmentHeader;
    if (frame.size() < kData || frame[20] != kFragment) return {};
    bool is_last = &frame == &frames.back();
    size_t offset = packet.empty() ? 0 : packet.size() - kHeader;
    if (Get16(frame, 14 + kHeader + 2) != (offset | (is_last ? 0 : 1))) return {};
    if (packet.empty()) {
      packet.assign(frame.begin() + 14, frame.begin() + 14 + kHeader);
      packet[6] = frame[14 + kHeader];
    }
    if (Get32(frame, 58) != Get32(frames[0], 58) || frame[54] != packet[6]) return {};
    packet.insert(packet.end(), frame.begin() + kData, frame.end());
  }
  if (!packet.empty()) Set16(&packet, 4, static_cast<uint16_t>(packet.size() - kHeader));
  return packet;
}

Seen6 ReadPacket6(const Bytes& packet, bool cut) {
  Seen6 seen;
  if (packet.size() < kHeader || packet[0] >> 4 != 6) return seen;
  size_t total = kHeader + Get16(packet, 4);
  if (total > packet.size() && !cut) return seen;
  Bytes l4(packet.begin() + kHeader,
           packet.begin() + static_cast<long>(std::min(total, packet.size())));
  seen.protocol = packet[6];
  if (seen.protocol == kFragment && l4.size() >= kFragmentHeader) {
    seen.protocol = l4[0];
    seen.fragment = Get16(l4, 2);
    seen.identifier = Get32(l4, 4);
    l4.erase(l4.begin(), l4.begin() + kFragmentHeader);
  }
  seen.hops = packet[7];
  seen.source = GetAddress(packet, 8);
  seen.target = GetAddress(packet, 24);
  seen.source_port = Get16(l4, 0);
  seen.target_port = Get16(l4, 2);
  size_t header = seen.fragment > 1 ? 0 : 8;
  if (header == 0) {
    // Has no more than data.
  } else if (seen.protocol == 6 && l4.size() >= 20) {
    header = static_cast<size_t>(l4[12] >> 4) * 4;
    seen.sequence = Get32(l4, 4);
    seen.acknowledged = Get32(l4, 8);
    seen.flags = l4[13];
  } else if (seen.protocol == kIcmp6 && l4.size() >= 8) {
    seen.icmp_type = l4[0];
    seen.icmp_code = l4[1];
    seen.icmp_rest = Get32(l4, 4);
    seen.source_port = Get16(l4, 4);
  }
  uint32_t pseudo = PseudoHeader(seen.source, seen.target, seen.protocol, l4.size());
  seen.valid = cut || seen.fragment != 0 || Fold(Sum(l4) + pseudo) == 0;
  if (l4.size() >= header) seen.payload.assign(l4.begin() + static_cast<long>(header), l4.end());
  return seen;
}

Seen6 Read6(const Bytes& frame) {
  if (frame.size() < 14 + kHeader || Get16(frame, 12) != 0x86dd) return {};
  Seen6 seen = ReadPacket6(Bytes(frame.begin() + 14, frame.end()));
  seen.target_mac.assign(frame.begin(), frame.begin() + 6);
  seen.source_mac.assign(frame.begin() + 6, frame.begin() + 12);
  return seen;
}

Frame6 Solicitation(const char* asker, const char* wanted) {
  Frame6 frame;
  frame.source = Address6(asker);
  frame.target = Address6("ff02::1:ff00:0");
  bpf::address6 address = Address6(wanted);
  frame.target.words[3] |= address.words[3] & htonl(0xffffff);
  frame.protocol = kIcmp6;
  frame.hops = 255;
  frame.icmp_type = 135;
  const uint8_t group[6] = {0x33,
                            0x33,
                            0xff,
                            static_cast<uint8_t>(ntohl(address.words[3]) >> 16),
                            static_cast<uint8_t>(ntohl(address.words[3]) >> 8),
                            static_cast<uint8_t>(ntohl(address.words[3]))};
  memcpy(frame.target_mac, group, 6);
  PutAddress(&frame.payload, address);
  frame.payload.insert(frame.payload.end(), {1, 1});
  frame.payload.insert(frame.payload.end(), frame.source_mac, frame.source_mac + 6);
  return frame;
}

}  // namespace cube::net::testing
