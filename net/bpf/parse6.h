#ifndef CUBE_NET_BPF_PARSE6_H_
#define CUBE_NET_BPF_PARSE6_H_

// Reads a packet of IPv6. Behind its header is TCP, UDP or ICMPv6 at once, or behind a fragment's:
// what has other headers between is not carried.

#include "net/bpf/packet.h"

static __always_inline int refuse_header(__u8 protocol) {
  switch (protocol) {
    case IPPROTO_HOPOPTS:
    case IPPROTO_ROUTING:
    case IPPROTO_DSTOPTS:
      return REASON_OPTIONS;
    case IPPROTO_FRAGMENT:
      return REASON_FRAGMENT;
    default:
      return REASON_PROTOCOL;
  }
}

// An ICMPv6 error: `packet` gets the ports of the packet within, as an answer to it would have
// them.
static __always_inline int parse_error(struct __sk_buff* skb, struct packet* packet, __u32 length) {
  struct {
    struct plain_header ip;
    __u16 ports[4];
  } inner;
  if (length < 8 + sizeof(inner) || packet->fragmented) return REASON_MALFORMED;
  if (bpf_skb_load_bytes(skb, L4 + 8, &inner, sizeof(inner)) < 0) return REASON_MALFORMED;
  if ((inner.ip.first & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000)) return REASON_MALFORMED;
  // The error is for whoever sent the packet within.
  if (!same_address(inner.ip.saddr, packet->ip.daddr)) return REASON_MALFORMED;
  if (inner.ip.protocol == IPPROTO_FRAGMENT) {
    // Only the first one says whose it is.
    if (inner.ports[1] & bpf_htons(FRAGMENT_OFFSET)) return REASON_FRAGMENT;
    inner.ip.protocol = bpf_ntohs(inner.ports[0]) >> 8;
    packet->inner_skip = FRAGMENT_HEADER;
    if (length < 8 + sizeof(inner) + FRAGMENT_HEADER) return REASON_MALFORMED;
    if (bpf_skb_load_bytes(skb, L4 + 8 + sizeof(inner), inner.ports, sizeof(inner.ports)) < 0) {
      return REASON_MALFORMED;
    }
  }
  packet->is_error = 1;
  packet->inner_target = inner.ip.daddr;
  packet->inner_protocol = inner.ip.protocol;
  if (inner.ip.protocol == IPPROTO_TCP || inner.ip.protocol == IPPROTO_UDP) {
    packet->source_port = inner.ports[1];
    packet->target_port = inner.ports[0];
    return REASON_ALLOWED;
  }
  __u8 type = inner.ports[0] & 0xff;
  if (inner.ip.protocol != IPPROTO_ICMPV6) return refuse_header(inner.ip.protocol);
  if (type != ICMP_ECHO_REQUEST && type != ICMP_ECHO_REPLY) return REASON_PROTOCOL;
  packet->source_port = packet->target_port = inner.ports[2];
  return REASON_ALLOWED;
}

#ifdef CUBE_FRAGMENTS
// The part of a datagram, `length` bytes behind the fragment's header. One that has the whole of it
// (RFC 6946) is none.
static __always_inline int parse_fragment(struct packet* packet, __u32 length) {
  __u16 fragment = bpf_ntohs(packet->ip.fragment);
  __u32 offset = fragment & FRAGMENT_OFFSET;
  __u8 protocol = packet->ip.protocol;
  packet->later_fragment = offset != 0;
  packet->fragmented = offset != 0 || (fragment & FRAGMENT_MORE);
  if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_ICMPV6) {
    return refuse_header(protocol);
  }
  if (!packet->fragmented) return REASON_ALLOWED;
  // Nothing lies beyond the longest packet, nor anywhere but at a multiple of 8.
  if (length == 0 || offset + length > 65535) return REASON_FRAGMENT;
  if ((fragment & FRAGMENT_MORE) && (length & 7)) return REASON_FRAGMENT;
  packet->edge = packet->later_fragment ? offset : length;
  return REASON_ALLOWED;
}
#endif

// Reads the packet of a frame whose headers have been gathered. REASON_ALLOWED, or what is wrong
// with it.
static __always_inline int parse(struct __sk_buff* skb, struct packet* packet) {
  __builtin_memset(packet, 0, sizeof(*packet));
  const void* frame = bytes_of(skb, L4);
  if (!frame) return REASON_MALFORMED;
  packet->ip = *(const struct ip_header*)(frame + ETH_HLEN);
  if ((packet->ip.first & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000)) return REASON_MALFORMED;
  // A length of 0 is that of a jumbogram (RFC 2675), whose true one is in an option.
  __u32 length = bpf_ntohs(packet->ip.length);
  if (length + PLAIN_L4 > skb->len) return REASON_MALFORMED;
#ifdef CUBE_FRAGMENTS
  if (packet->ip.next != IPPROTO_FRAGMENT || length < FRAGMENT_HEADER) return REASON_MALFORMED;
  // A device that cuts it up knows nothing of parts.
  if (skb->gso_size) return REASON_MALFORMED;
  length -= FRAGMENT_HEADER;
  int part = parse_fragment(packet, length);
  if (part != REASON_ALLOWED || packet->later_fragment) return part;
#endif
  switch (packet->ip.protocol) {
    case IPPROTO_TCP:
      return parse_tcp(skb, packet, length);
    case IPPROTO_UDP: {
      int reason = parse_udp(skb, packet, length);
      // RFC 8200 section 8.1: there is always one.
      return reason == REASON_ALLOWED && !packet->checksum ? REASON_MALFORMED : reason;
    }
    case IPPROTO_ICMPV6:
      return parse_icmp(skb, packet, length);
    default:
      return refuse_header(packet->ip.protocol);
  }
}

#endif  // CUBE_NET_BPF_PARSE6_H_
