#ifndef CUBE_NET_BPF_REWRITE4_H_
#define CUBE_NET_BPF_REWRITE4_H_

// What checksums of IPv4 need when a packet's addresses change. Part of rewrite.h.

static __always_inline __u16 header_checksum(const struct iphdr* ip) {
  const __u16* words = (const __u16*)ip;
  __u64 sum = 0;
#pragma unroll
  for (int i = 0; i < 10; i++) sum += words[i];
  return fold(sum - ip->check);
}

static __always_inline void seal_header(struct iphdr* ip) {
  ip->check = 0;
  ip->check = header_checksum(ip);
}

static __always_inline void set_identifier(const struct packet* packet, const struct rewrite* to,
                                           struct iphdr* ip) {
  if (packet->fragmented) ip->id = to->identifier;
}

// What the new addresses add to a checksum over them.
static __always_inline __u64 moved_addresses(const struct packet* packet,
                                             const struct rewrite* to) {
  return difference(packet->ip.saddr, packet->ip.daddr, to->source, to->target);
}

static __always_inline int move_addresses(struct __sk_buff* skb, __u32 at, __u64 moved,
                                          const int mangled) {
  return bpf_l4_csum_replace(skb, at, 0, moved, mangled | BPF_F_PSEUDO_HDR);
}

#endif  // CUBE_NET_BPF_REWRITE4_H_
