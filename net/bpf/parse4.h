#ifndef CUBE_NET_BPF_PARSE4_H_
#define CUBE_NET_BPF_PARSE4_H_

// Reads a packet of IPv4.

#include "net/bpf/packet.h"

// An ICMP error: `packet` gets the ports of the packet within, as an answer to it would have them.
static __always_inline int parse_error(struct __sk_buff* skb, struct packet* packet, __u32 length) {
  struct {
    struct iphdr ip;
    __u16 ports[4];
  } inner;
  if (length < 8 + sizeof(inner) || packet->fragmented) return REASON_MALFORMED;
  if (bpf_skb_load_bytes(skb, L4 + 8, &inner, sizeof(inner)) < 0) return REASON_MALFORMED;
  if (inner.ip.version != 4 || inner.ip.ihl != 5) return REASON_OPTIONS;
  if (inner.ip.frag_off & bpf_htons(IP_OFFSET)) return REASON_FRAGMENT;
  // The error is for whoever sent the packet within.
  if (inner.ip.saddr != packet->ip.daddr) return REASON_MALFORMED;
  packet->is_error = 1;
  packet->inner_target = inner.ip.daddr;
  packet->inner_protocol = inner.ip.protocol;
  if (inner.ip.protocol == IPPROTO_TCP || inner.ip.protocol == IPPROTO_UDP) {
    packet->source_port = inner.ports[1];
    packet->target_port = inner.ports[0];
    return REASON_ALLOWED;
  }
  __u8 type = inner.ports[0] & 0xff;
  if (inner.ip.protocol != IPPROTO_ICMP) return REASON_PROTOCOL;
  if (type != ICMP_ECHO_REQUEST && type != ICMP_ECHO_REPLY) return REASON_PROTOCOL;
  packet->source_port = packet->target_port = inner.ports[2];
  return REASON_ALLOWED;
}

// Reads the packet of a frame whose headers have been gathered. REASON_ALLOWED, or what is wrong
// with it.
static __always_inline int parse(struct __sk_buff* skb, struct packet* packet) {
  __builtin_memset(packet, 0, sizeof(*packet));
  const void* frame = bytes_of(skb, L4);
  if (!frame) return REASON_MALFORMED;
  packet->ip = *(const struct iphdr*)(frame + ETH_HLEN);
  if (packet->ip.version != 4 || packet->ip.ihl < 5) return REASON_MALFORMED;
  if (packet->ip.ihl != 5) return REASON_OPTIONS;
  __u32 total = bpf_ntohs(packet->ip.tot_len);
  if (total < 20 || total + ETH_HLEN > skb->len) return REASON_MALFORMED;
  __u32 length = total - 20;
  __u16 fragment = bpf_ntohs(packet->ip.frag_off);
  __u32 offset = (fragment & IP_OFFSET) * 8;
  packet->fragmented = offset != 0 || (fragment & IP_MORE);
  packet->later_fragment = offset != 0;
  __u8 protocol = packet->ip.protocol;
  if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_ICMP) {
    return REASON_PROTOCOL;
  }
  if (packet->fragmented) {
    // Nothing is to lie over the transport header (RFC 1858), nor beyond the longest packet.
    if (offset != 0 && offset < 24) {
      if (protocol == IPPROTO_TCP) return REASON_FRAGMENT;
    }
    if (length == 0 || offset + length > 65515) return REASON_FRAGMENT;
    if ((fragment & IP_MORE) && (length & 7)) return REASON_FRAGMENT;
    packet->edge = packet->later_fragment ? offset : length;
    if (packet->later_fragment) return REASON_ALLOWED;
  }
  if (protocol == IPPROTO_TCP) return parse_tcp(skb, packet, length);
  if (protocol == IPPROTO_UDP) return parse_udp(skb, packet, length);
  return parse_icmp(skb, packet, length);
}

#endif  // CUBE_NET_BPF_PARSE4_H_
