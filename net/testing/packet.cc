#include "net/testing/packet.h"

#include <arpa/inet.h>

#include <cstring>

namespace cube::net::testing {

void Put16(Bytes* bytes, uint16_t value) {
  bytes->push_back(static_cast<uint8_t>(value >> 8));
  bytes->push_back(static_cast<uint8_t>(value));
}

void Put32(Bytes* bytes, uint32_t value) {
  Put16(bytes, static_cast<uint16_t>(value >> 16));
  Put16(bytes, static_cast<uint16_t>(value));
}

void Set16(Bytes* bytes, size_t at, uint16_t value) {
  (*bytes)[at] = static_cast<uint8_t>(value >> 8);
  (*bytes)[at + 1] = static_cast<uint8_t>(value);
}

uint32_t Sum(const Bytes& bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    sum += i % 2 == 0 ? static_cast<uint32_t>(bytes[i]) << 8 : bytes[i];
  }
  return sum;
}

uint16_t Fold(uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

namespace {

uint32_t PseudoHeader(uint32_t source, uint32_t target, uint8_t protocol, size_t size) {
  Bytes bytes;
  Put32(&bytes, ntohl(source));
  Put32(&bytes, ntohl(target));
  Put16(&bytes, protocol);
  Put16(&bytes, static_cast<uint16_t>(size));
  return Sum(bytes);
}

}  // namespace

uint16_t Get16(const Bytes& bytes, size_t at) {
  return at + 2 <= bytes.size() ? static_cast<uint16_t>(bytes[at] << 8 | bytes[at + 1]) : 0;
}

uint32_t Get32(const Bytes& bytes, size_t at) {
  return static_cast<uint32_t>(Get16(bytes, at)) << 16 | Get16(bytes, at + 2);
}

uint32_t Address(const char* text) {
  in_addr address = {};
  inet_pton(AF_INET, text, &address);
  return address.s_addr;
}

Bytes Frame::Packet() const {
  Bytes l4;
  if (raw) {
    l4 = payload;
  } else if (protocol == 6) {
    Put16(&l4, source_port);
    Put16(&l4, target_port);
    Put32(&l4, sequence);
    Put32(&l4, acknowledged);
    l4.push_back(5 << 4);
    l4.push_back(flags);
    Put16(&l4, 65535);
    Put32(&l4, 0);
  } else if (protocol == 17) {
    Put16(&l4, source_port);
    Put16(&l4, target_port);
    Put16(&l4, static_cast<uint16_t>(8 + payload.size()));
    Put16(&l4, 0);
  } else if (protocol == 1) {
    l4.push_back(icmp_type);
    l4.push_back(icmp_code);
    Put16(&l4, 0);
    bool is_echo = icmp_type == 0 || icmp_type == 8;
    Put32(&l4, is_echo ? static_cast<uint32_t>(source_port) << 16 | 1 : icmp_rest);
  }
  if (!raw) {
    l4.insert(l4.end(), payload.begin(), payload.end());
    uint32_t pseudo = PseudoHeader(source, target, protocol, l4.size());
    if (protocol == 6) Set16(&l4, 16, Fold(Sum(l4) + pseudo));
    if (protocol == 17 && udp_checksum) Set16(&l4, 6, Fold(Sum(l4) + pseudo));
    if (protocol == 1) Set16(&l4, 2, Fold(Sum(l4)));
  }
  Bytes ip;
  size_t header = 20 + options.size();
  ip.push_back(static_cast<uint8_t>(0x40 | header / 4));
  ip.push_back(0);
  Put16(&ip, static_cast<uint16_t>(header + l4.size()));
  Put16(&ip, identifier);
  Put16(&ip, fragment);
  ip.push_back(ttl);
  ip.push_back(protocol);
  Put16(&ip, 0);
  Put32(&ip, ntohl(source));
  Put32(&ip, ntohl(target));
  ip.insert(ip.end(), options.begin(), options.end());
  Set16(&ip, 10, Fold(Sum(ip)));
  ip.insert(ip.end(), l4.begin(), l4.end());
  return ip;
}

Bytes Frame::Build() const {
  Bytes frame(target_mac, target_mac + 6);
  frame.insert(frame.end(), source_mac, source_mac + 6);
  Put16(&frame, ethertype);
  Bytes packet = Packet();
  frame.insert(frame.end(), packet.begin(), packet.end());
  return frame;
}

Seen ReadPacket(const Bytes& packet, bool cut) {
  Seen seen;
  if (packet.size() < 20 || packet[0] != 0x45) return seen;
  Bytes ip(packet.begin(), packet.begin() + 20);
  size_t total = Get16(packet, 2);
  if (total < 20 || (total > packet.size() && !cut)) return seen;
  Bytes l4(packet.begin() + 20, packet.begin() + static_cast<long>(std::min(total, packet.size())));
  seen.identifier = Get16(packet, 4);
  seen.fragment = Get16(packet, 6);
  seen.ttl = packet[8];
  seen.protocol = packet[9];
  seen.source = htonl(Get32(packet, 12));
  seen.target = htonl(Get32(packet, 16));
  seen.valid = Fold(Sum(ip)) == 0;
  seen.source_port = Get16(l4, 0);
  seen.target_port = Get16(l4, 2);
  bool is_part = cut || (seen.fragment & 0x3fff) != 0;
  uint32_t pseudo = PseudoHeader(seen.source, seen.target, seen.protocol, l4.size());
  size_t header = 8;
  if (seen.protocol == 6 && l4.size() >= 20) {
    header = static_cast<size_t>(l4[12] >> 4) * 4;
    seen.sequence = Get32(l4, 4);
    seen.acknowledged = Get32(l4, 8);
    seen.flags = l4[13];
    if (!is_part) seen.valid = seen.valid && Fold(Sum(l4) + pseudo) == 0;
  } else if (seen.protocol == 17) {
    bool none = Get16(l4, 6) == 0;
    if (!is_part) seen.valid = seen.valid && (none || Fold(Sum(l4) + pseudo) == 0);
  } else if (seen.protocol == 1 && l4.size() >= 8) {
    seen.icmp_type = l4[0];
    seen.icmp_code = l4[1];
    seen.icmp_rest = Get32(l4, 4);
    seen.source_port = Get16(l4, 4);
    if (!is_part) seen.valid = seen.valid && Fold(Sum(l4)) == 0;
  }
  if ((seen.fragment & 0x1fff) != 0) header = 0;
  if (l4.size() >= header) seen.payload.assign(l4.begin() + static_cast<long>(header), l4.end());
  return seen;
}

Seen Read(const Bytes& frame) {
  if (frame.size() < 34) return {};
  Seen seen = ReadPacket(Bytes(frame.begin() + 14, frame.end()));
  seen.target_mac.assign(frame.begin(), frame.begin() + 6);
  seen.source_mac.assign(frame.begin() + 6, frame.begin() + 12);
  return seen;
}

Bytes Arp(uint16_t operation, const uint8_t* sender_mac, uint32_t sender, uint32_t target) {
  Bytes frame(6, 0xff);
  frame.insert(frame.end(), sender_mac, sender_mac + 6);
  Put16(&frame, 0x0806);
  Put16(&frame, 1);
  Put16(&frame, 0x0800);
  frame.push_back(6);
  frame.push_back(4);
  Put16(&frame, operation);
  frame.insert(frame.end(), sender_mac, sender_mac + 6);
  Put32(&frame, ntohl(sender));
  frame.insert(frame.end(), 6, 0);
  Put32(&frame, ntohl(target));
  return frame;
}

}  // namespace cube::net::testing
