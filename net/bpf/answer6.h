#ifndef CUBE_NET_BPF_ANSWER6_H_
#define CUBE_NET_BPF_ANSWER6_H_

// Answers to neighbour discovery (RFC 4861), and errors of ICMPv6. Part of answer.h.

#define OPTION_TARGET_MAC 2
#define ADVERTISED 0xe0000000  // by a router, asked for, in place of what was known

// A header for an answer of `length` bytes of ICMPv6.
static __always_inline void answer_header(ip_address source, ip_address target, __u32 length,
                                          __u8 hops, struct plain_header* ip) {
  ip->first = bpf_htonl(0x60000000);
  ip->length = bpf_htons(length);
  ip->protocol = IPPROTO_ICMPV6;
  ip->ttl = hops;
  ip->saddr = source;
  ip->daddr = target;
}

// Of `length` bytes that begin where the addresses in front of ICMPv6 do.
static __always_inline __u16 answer_checksum(ip_address* addresses, __u32 length) {
  __u32 pseudo = bpf_htonl(length - BOTH) + bpf_htonl(IPPROTO_ICMPV6);
  return fold((__u32)bpf_csum_diff(0, 0, (__be32*)addresses, length, pseudo));
}

#ifndef CUBE_FRAGMENTS
// Who asks for the gateway is told. Anything else that neighbours and routers say to one another is
// none of the guest's business; nor is it answered whether an address is somebody's already.
// REASON_ARP if the answer is in `skb`.
APART int answer_neighbour(struct __sk_buff* skb) {
  const __u8 guest[6] = CUBE_GUEST_MAC, gateway[6] = CUBE_GATEWAY_MAC;
  struct {
    struct plain_header ip;
    __u8 type, code;
    __u16 check;
    __u32 flags;
    ip_address target;
    __u8 option, units;
    __u8 mac[6];
  } frame;
  __builtin_memset(&frame, 0, sizeof(frame));
  if (bpf_skb_load_bytes(skb, ETH_HLEN, &frame, sizeof(frame) - 8) < 0) return REASON_MALFORMED;
  __u32 length = bpf_ntohs(frame.ip.length);
  if (frame.ip.ttl != 255 || frame.code != 0 || length < 24 || length + L4 > skb->len) {
    return REASON_MALFORMED;
  }
  ip_address asker = frame.ip.saddr;
  int is_local = (asker.words[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
  if (!is_local && !same_address(asker, GUEST_ADDRESS)) return REASON_SOURCE;
  if (frame.type != ICMP_NEIGHBOUR_SOLICITATION || !same_address(frame.target, GATEWAY_ADDRESS)) {
    return REASON_SOURCE;
  }
  answer_header(GATEWAY_ADDRESS, asker, 32, 255, &frame.ip);
  frame.type = ICMP_NEIGHBOUR_ADVERTISEMENT;
  frame.flags = bpf_htonl(ADVERTISED);
  frame.option = OPTION_TARGET_MAC;
  frame.units = 1;
  __builtin_memcpy(frame.mac, gateway, 6);
  frame.check = 0;
  frame.check = answer_checksum(&frame.ip.saddr, BOTH + 32);
  if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(frame), 0) < 0) return REASON_MALFORMED;
  if (bpf_skb_store_bytes(skb, ETH_HLEN, &frame, sizeof(frame), 0) < 0) return REASON_MALFORMED;
  if (set_macs(skb, guest, gateway) < 0) return REASON_MALFORMED;
  return REASON_ARP;
}
#endif

// Makes an ICMPv6 error of a packet: its header and 8 bytes are quoted. `extra`: the error's last
// 32 bits.
APART int answer_icmp(struct __sk_buff* skb, const struct packet* packet, __u32 code, __u32 extra) {
  const __u8 guest[6] = CUBE_GUEST_MAC, gateway[6] = CUBE_GATEWAY_MAC;
  struct {
    struct plain_header ip;
    __u8 type, code;
    __u16 check;
    __u32 extra;
    struct ip_header quoted;
    __u8 quoted_l4[8];
  } answer;
  // Not of an error (RFC 4443 section 2.4); of a datagram's parts the first one has ports.
  if (!packet || packet->is_error || packet->later_fragment) return -1;
  const __u32 length = sizeof(answer) - sizeof(answer.ip);
  __builtin_memset(&answer, 0, sizeof(answer));
  if (bpf_skb_load_bytes(skb, L4, answer.quoted_l4, 8) < 0) return -1;
  answer.quoted = packet->ip;
  answer.type = code >> 8;
  answer.code = code & 0xff;
  answer.extra = extra;
  answer_header(GATEWAY_ADDRESS, packet->ip.saddr, length, 64, &answer.ip);
  answer.check = answer_checksum(&answer.ip.saddr, BOTH + length);
  if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(answer), 0) < 0) return -1;
  if (bpf_skb_store_bytes(skb, ETH_HLEN, &answer, sizeof(answer), 0) < 0) return -1;
  return set_macs(skb, guest, gateway);
}

#endif  // CUBE_NET_BPF_ANSWER6_H_
