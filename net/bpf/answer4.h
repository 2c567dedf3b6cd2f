#ifndef CUBE_NET_BPF_ANSWER4_H_
#define CUBE_NET_BPF_ANSWER4_H_

// Answers to ARP, and errors of ICMP. Part of answer.h.

#define ARPHRD_ETHER 1
#define ARPOP_REQUEST 1
#define ARPOP_REPLY 2

// Ethernet and IPv4 only (RFC 826).
struct arp {
  struct {
    __u16 ar_hrd, ar_pro;
    __u8 ar_hln, ar_pln;
    __u16 ar_op;
  } header;
  __u8 sender_mac[6];
  __u8 sender[4];
  __u8 target_mac[6];
  __u8 target[4];
} __attribute__((packed));

// Who asks for the gateway is told. Anything else says, or asks, what is none of the guest's
// business. REASON_ARP if the answer is in `skb`.
static __always_inline int answer_arp(struct __sk_buff* skb) {
  const __u8 guest[6] = CUBE_GUEST_MAC, gateway[6] = CUBE_GATEWAY_MAC;
  struct arp arp;
  if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) < 0) return REASON_MALFORMED;
  if (arp.header.ar_hrd != bpf_htons(ARPHRD_ETHER) || arp.header.ar_pro != bpf_htons(ETH_P_IP) ||
      arp.header.ar_hln != 6 || arp.header.ar_pln != 4) {
    return REASON_MALFORMED;
  }
  __u32 sender, target;
  __builtin_memcpy(&sender, arp.sender, 4);
  __builtin_memcpy(&target, arp.target, 4);
  if (!same_mac(arp.sender_mac, guest)) return REASON_SOURCE;
  if (sender != GUEST_ADDRESS && sender != 0) return REASON_SOURCE;
  if (arp.header.ar_op != bpf_htons(ARPOP_REQUEST) || target != GATEWAY_ADDRESS) {
    return REASON_SOURCE;
  }
  arp.header.ar_op = bpf_htons(ARPOP_REPLY);
  __builtin_memcpy(arp.target_mac, arp.sender_mac, 6);
  __builtin_memcpy(arp.target, &sender, 4);
  __builtin_memcpy(arp.sender_mac, gateway, 6);
  __builtin_memcpy(arp.sender, &target, 4);
  if (bpf_skb_store_bytes(skb, ETH_HLEN, &arp, sizeof(arp), 0) < 0) return REASON_MALFORMED;
  if (set_macs(skb, guest, gateway) < 0) return REASON_MALFORMED;
  return REASON_ARP;
}

// A header of 20 bytes for an answer of `length` bytes behind it.
static __always_inline void answer_header(const struct packet* packet, __u32 source, __u8 protocol,
                                          __u32 length, struct iphdr* ip) {
  __builtin_memset(ip, 0, sizeof(*ip));
  ip->version = 4;
  ip->ihl = 5;
  ip->tot_len = bpf_htons(20 + length);
  ip->frag_off = bpf_htons(IP_DONT);
  ip->ttl = 64;
  ip->protocol = protocol;
  ip->saddr = source;
  ip->daddr = packet->ip.saddr;
  ip->check = header_checksum(ip);
}

// Makes an ICMP error of a packet: its header and 8 bytes are quoted. `extra`: its last 32 bits.
APART int answer_icmp(struct __sk_buff* skb, const struct packet* packet, __u32 code, __u32 extra) {
  const __u8 guest[6] = CUBE_GUEST_MAC, gateway[6] = CUBE_GATEWAY_MAC;
  struct {
    struct iphdr ip;
    __u8 type, code;
    __u16 check;
    __u32 extra;
    struct iphdr quoted;
    __u8 quoted_l4[8];
  } answer;
  // Neither of an error, nor of what may be a part only (RFC 1122 section 3.2.2).
  if (!packet || packet->is_error || packet->later_fragment) return -1;
  __builtin_memset(&answer, 0, sizeof(answer));
  if (bpf_skb_load_bytes(skb, L4, answer.quoted_l4, 8) < 0) return -1;
  answer.quoted = packet->ip;
  answer.type = code >> 8;
  answer.code = code & 0xff;
  answer.extra = extra;
  answer.check = fold(bpf_csum_diff(0, 0, (__be32*)&answer.type, 36, 0));
  answer_header(packet, GATEWAY_ADDRESS, IPPROTO_ICMP, 36, &answer.ip);
  if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(answer), 0) < 0) return -1;
  if (bpf_skb_store_bytes(skb, ETH_HLEN, &answer, sizeof(answer), 0) < 0) return -1;
  return set_macs(skb, guest, gateway);
}

#endif  // CUBE_NET_BPF_ANSWER4_H_
