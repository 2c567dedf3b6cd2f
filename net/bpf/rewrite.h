#ifndef CUBE_NET_BPF_REWRITE_H_
#define CUBE_NET_BPF_REWRITE_H_

// Changes addresses and ports of a packet, checksums included, whether they are there already or
// left to a device (CHECKSUM_PARTIAL): the helpers know, so nothing here is written past them.

#include "net/bpf/packet.h"

struct rewrite {
  ip_address source;
  ip_address target;
  __u16 source_port;
  __u16 target_port;
  ip_address inner_target;  // of the packet within an ICMP error, whose source is `target`
  __u32 identifier;         // of a fragment
};

static __always_inline __u16 fold(__u64 sum) {
  sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + ((sum >> 32) & 0xffff) + (sum >> 48);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return ~sum;
}

// What two words add to a checksum in the place of two others, as the helpers take it: 32 bits.
static __always_inline __u64 difference(__u32 before1, __u32 before2, __u32 after1, __u32 after2) {
  __u64 sum = (__u64)after1 + after2 + (__u32)~before1 + (__u32)~before2;
  sum = (sum & 0xffffffff) + (sum >> 32);
  return (sum & 0xffffffff) + (sum >> 32);
}

// Both of a packet's addresses, which lie side by side wherever they are.
#define BOTH (2 * sizeof(ip_address))

#ifdef CUBE_IPV6
#include "net/bpf/rewrite6.h"
#else
#include "net/bpf/rewrite4.h"
#endif

// The packet within an ICMP error.
APART int rewrite_inner(struct __sk_buff* skb, const struct packet* packet,
                        const struct rewrite* to) {
  struct plain_header before, after;
  __u16 l4_before[4], l4[4];
  if (!packet || !to) return -1;
  __u32 l4_at = L4 + 8 + sizeof(before) + packet->inner_skip;
  if (bpf_skb_load_bytes(skb, L4 + 8, &before, sizeof(before)) < 0) return -1;
  if (bpf_skb_load_bytes(skb, l4_at, l4_before, sizeof(l4_before)) < 0) return -1;
  after = before;
  after.saddr = to->target;
  after.daddr = to->inner_target;
  seal_header(&after);
  __builtin_memcpy(l4, l4_before, sizeof(l4));
  __s64 change = bpf_csum_diff((__be32*)&before.saddr, BOTH, (__be32*)&after.saddr, BOTH, 0);
  if (packet->inner_protocol == ICMP_PROTOCOL) {
    l4[2] = to->target_port;
    __u64 sum = (__u64)(__u16)~l4_before[1] + (__u16)~l4_before[2] + l4[2];
    l4[1] = fold(FAMILY == 6 ? sum + (__u32)change : sum);
  } else {
    l4[0] = to->target_port;
    l4[1] = to->source_port;
    if (packet->inner_protocol == IPPROTO_UDP && l4_before[3] != 0) {
      change = bpf_csum_diff((__be32*)l4_before, 4, (__be32*)l4, 4, change);
      l4[3] = fold((__u64)(__u32)change + (__u16)~l4_before[3]);
      if (l4[3] == 0) l4[3] = 0xffff;
    }
  }
  change = bpf_csum_diff((__be32*)&before, sizeof(before), (__be32*)&after, sizeof(after), 0);
  change = bpf_csum_diff((__be32*)l4_before, sizeof(l4), (__be32*)l4, sizeof(l4), change);
  if (bpf_l4_csum_replace(skb, L4 + ICMP_CHECK_AT, 0, change, 0) < 0) return -1;
  if (bpf_skb_store_bytes(skb, l4_at, l4, sizeof(l4), 0) < 0) return -1;
  return bpf_skb_store_bytes(skb, L4 + 8, &after, sizeof(after), 0);
}

// A checksum of a header after that. `mangled`: none may be 0, which would say that there is none.
static __always_inline __u16 replaced(__u16 checksum, __u64 by, int mangled) {
  __u16 sum = fold((__u64)(__u16)~checksum + by);
  return sum == 0 && mangled ? 0xffff : sum;
}

// Ports, and the checksum at `check` behind them. The helper knows whether the sum is whole or left
// to a device, and so do we by what it has made of it: one that is left has addresses in it, but
// no ports.
static __always_inline int rewrite_ports(struct __sk_buff* skb, const struct packet* packet,
                                         const struct rewrite* to, const int check,
                                         const int mangled) {
  __u32 before = packet->source_port | (__u32)packet->target_port << 16;
  __u32 after = to->source_port | (__u32)to->target_port << 16;
  __u64 moved = moved_addresses(packet, to);
  __u64 change = difference(before, 0, after, 0);
  if (move_addresses(skb, L4 + check, moved, mangled) < 0) return -1;
  void* frame = bytes_of(skb, L4 + check + 2);
  if (!frame) return -1;
  *(__u32*)(frame + L4) = after;
  __u16 whole = replaced(packet->checksum, moved, mangled);
  __u16* checksum = frame + L4 + check;
  if (*checksum != whole) return 0;
  // By a difference of nothing both would come to the same.
  if (fold(moved) == 0) return bpf_l4_csum_replace(skb, L4 + check, 0, change, mangled);
  *checksum = replaced(whole, change, mangled);
  return 0;
}

static __always_inline int rewrite_l4(struct __sk_buff* skb, const struct packet* packet,
                                      const struct rewrite* to) {
  if (packet->ip.protocol == IPPROTO_TCP) return rewrite_ports(skb, packet, to, TCP_CHECK_AT, 0);
  if (packet->checksum != 0) {
    return rewrite_ports(skb, packet, to, UDP_CHECK_AT, BPF_F_MARK_MANGLED_0);
  }
  // A datagram without one goes on without one. (A device that is to fill it in has it begun.)
  __u16* ports = bytes_of(skb, L4 + 8);
  if (!ports) return -1;
  ports[L4 / 2] = to->source_port;
  ports[L4 / 2 + 1] = to->target_port;
  return 0;
}

// The identifier of an echo, which stands where `packet` and `to` have the local port.
static __always_inline int rewrite_echo(struct __sk_buff* skb, __u16 before, __u16 after) {
  if (before == after) return 0;
  if (bpf_l4_csum_replace(skb, L4 + ICMP_CHECK_AT, before, after, 2) < 0) return -1;
  return bpf_skb_store_bytes(skb, L4 + 4, &after, 2, 0);
}

// `packet` is as it was read. One hop is taken off its time to live.
static __always_inline int rewrite_packet(struct __sk_buff* skb, const struct packet* packet,
                                          const struct rewrite* to) {
  // Only that of ICMPv6 is over addresses as well.
  if (FAMILY == 6 && packet->ip.protocol == ICMP_PROTOCOL && !packet->later_fragment &&
      move_addresses(skb, L4 + ICMP_CHECK_AT, moved_addresses(packet, to), 0) < 0) {
    return -1;
  }
  if (packet->is_error) {
    if (rewrite_inner(skb, packet, to) < 0) return -1;
  } else if (packet->later_fragment) {
    // Has no more than addresses.
  } else if (packet->ip.protocol == ICMP_PROTOCOL) {
    // One of the two differs from what it was.
    __u16 after = to->source_port != packet->source_port ? to->source_port : to->target_port;
    if (rewrite_echo(skb, packet->source_port, after) < 0) return -1;
  } else {
    if (rewrite_l4(skb, packet, to) < 0) return -1;
  }
  struct ip_header ip = packet->ip;
  ip.saddr = to->source;
  ip.daddr = to->target;
  ip.ttl--;
  set_identifier(packet, to, &ip);
  seal_header(&ip);
  void* frame = bytes_of(skb, L4);
  if (!frame) return -1;
  *(struct ip_header*)(frame + ETH_HLEN) = ip;
  return 0;
}

// The same without a helper, where the frame's start is at hand.
static __always_inline int write_macs(struct __sk_buff* skb, const __u8* target,
                                      const __u8* source) {
  void* frame = bytes_of(skb, ETH_HLEN);
  if (!frame) return -1;
  __builtin_memcpy(frame, target, 6);
  __builtin_memcpy(frame + 6, source, 6);
  return 0;
}

static __always_inline int set_macs(struct __sk_buff* skb, const __u8* target, const __u8* source) {
  __u8 macs[12];
  __builtin_memcpy(macs, target, 6);
  __builtin_memcpy(macs + 6, source, 6);
  return bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
}

#endif  // CUBE_NET_BPF_REWRITE_H_
