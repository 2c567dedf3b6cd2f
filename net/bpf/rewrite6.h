#ifndef CUBE_NET_BPF_REWRITE6_H_
#define CUBE_NET_BPF_REWRITE6_H_

// What checksums of IPv6 need when a packet's addresses change. Part of rewrite.h.

// There is none of the header itself.
static __always_inline void seal_header(void* ip) {}

static __always_inline void set_identifier(const struct packet* packet, const struct rewrite* to,
                                           struct ip_header* ip) {
#ifdef CUBE_FRAGMENTS
  // One that is all there is of its datagram (RFC 6946) is nobody's neighbour.
  ip->identifier = packet->fragmented ? to->identifier : bpf_get_prandom_u32();
#endif
}

// What the new addresses add to a checksum over them.
static __always_inline __u64 moved_addresses(const struct packet* packet,
                                             const struct rewrite* to) {
  return (__u32)bpf_csum_diff((__be32*)&packet->ip.saddr, BOTH, (__be32*)&to->source, BOTH, 0);
}

static __always_inline int move_addresses(struct __sk_buff* skb, __u32 at, __u64 moved,
                                          const int mangled) {
  // A sum over the whole frame stays what it is. Kernels before 6.16 are not to be told, and where
  // a frame goes from here, into a TAP or out of a device, nobody asks for it.
  int failed = bpf_l4_csum_replace(skb, at, 0, moved, mangled | BPF_F_PSEUDO_HDR | BPF_F_IPV6);
  if (!failed) return 0;
  return bpf_l4_csum_replace(skb, at, 0, moved, mangled | BPF_F_PSEUDO_HDR);
}

#endif  // CUBE_NET_BPF_REWRITE6_H_
