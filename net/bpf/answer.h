#ifndef CUBE_NET_BPF_ANSWER_H_
#define CUBE_NET_BPF_ANSWER_H_

// Answers that are made of the guest's own packet and go back by the TAP it came from.

#include "net/bpf/rewrite.h"

static __always_inline int same_mac(const __u8* a, const __u8* b) {
  __u8 differ = 0;
#pragma unroll
  for (int i = 0; i < 6; i++) differ |= a[i] ^ b[i];
  return !differ;
}

#ifdef CUBE_IPV6
#include "net/bpf/answer6.h"
#else
#include "net/bpf/answer4.h"
#endif

// Puts 32 bits of TCP's header at `at`.
static __always_inline int set_tcp(struct __sk_buff* skb, __u32 at, __u32 before, __u32 after) {
  if (bpf_l4_csum_replace(skb, L4 + TCP_CHECK_AT, before, after, 4) < 0) return -1;
  return bpf_skb_store_bytes(skb, L4 + at, &after, 4, 0);
}

// Makes a reset of a segment, as RFC 9293 section 3.10.7.1 has it: whoever connects learns at once
// that it is refused. The segment keeps its length, so its checksum is changed, not made.
APART int answer_reset(struct __sk_buff* skb, const struct packet* packet) {
  const __u8 guest[6] = CUBE_GUEST_MAC, gateway[6] = CUBE_GATEWAY_MAC;
  __u32 words[2];  // ports, and data offset with flags and window
  if (!packet || (packet->flags & TCP_RST)) return -1;
  if (bpf_skb_load_bytes(skb, L4, &words[0], 4) < 0) return -1;
  if (bpf_skb_load_bytes(skb, L4 + TCP_DOFF_AT, &words[1], 4) < 0) return -1;
  __u32 sequence = 0, acknowledged = 0;
  __u8 flags = TCP_RST;
  if (packet->flags & TCP_ACK) {
    sequence = packet->acknowledged;
  } else {
    __u32 length = packet->payload + !!(packet->flags & (TCP_SYN | TCP_FIN));
    acknowledged = bpf_htonl(bpf_ntohl(packet->sequence) + length);
    flags |= TCP_ACK;
  }
  __u32 ports = (words[0] >> 16) | (words[0] << 16);
  __u32 control = (words[1] & bpf_htonl(0xff00ffff)) | bpf_htonl((__u32)flags << 16);
  control &= bpf_htonl(0xf0ffffff);
  if (bpf_skb_store_bytes(skb, L4, &ports, 4, 0) < 0) return -1;  // the sum is the same
  if (set_tcp(skb, TCP_SEQ_AT, packet->sequence, sequence) < 0) return -1;
  if (set_tcp(skb, 8, packet->acknowledged, acknowledged) < 0) return -1;
  if (set_tcp(skb, TCP_DOFF_AT, words[1], control) < 0) return -1;
  struct ip_header ip = packet->ip;
  ip.saddr = packet->ip.daddr;
  ip.daddr = packet->ip.saddr;
  if (bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) < 0) return -1;
  return set_macs(skb, guest, gateway);
}

// A refused packet is answered, so that nobody has to wait for a timeout. TC_ACT_*.
static __always_inline int refuse(struct __sk_buff* skb, const struct packet* packet,
                                  __u32 ifindex) {
  if (packet->later_fragment || packet->is_error) return TC_ACT_SHOT;
  if (packet->ip.protocol == IPPROTO_TCP) {
    // A reset that is a part of a segment is none.
    if (packet->fragmented) return TC_ACT_SHOT;
    if (answer_reset(skb, packet) < 0) return TC_ACT_SHOT;
  } else if (answer_icmp(skb, packet, ERROR_PROHIBITED, 0) < 0) {
    return TC_ACT_SHOT;
  }
  return bpf_redirect(ifindex, 0);
}

#endif  // CUBE_NET_BPF_ANSWER_H_
