#ifndef CUBE_NET_BPF_FAMILY6_H_
#define CUBE_NET_BPF_FAMILY6_H_

// What the programs for IPv6 do, compiled twice: for packets, and with CUBE_FRAGMENTS for
// fragments, in which all that is behind IPv6's header lies elsewhere.

#include "net/bpf/inward.h"
#include "net/bpf/outward.h"
#include "net/bpf/parse6.h"

// Else everything is refused, and answered so. The tables are empty then.
const volatile __u32 carried = 1;

#ifdef CUBE_FRAGMENTS
static __always_inline void hand_over(struct __sk_buff* skb, __u32 program) {}
#else
static __always_inline int is_discovery(const struct __sk_buff* skb) {
  const void* frame = bytes_of(skb, L4 + 1);
  if (!frame) return 0;
  const struct ip_header* ip = frame + ETH_HLEN;
  __u8 type = *(const __u8*)(frame + L4);
  return ip->protocol == IPPROTO_ICMPV6 && type >= 133 && type <= 137;
}

// A fragment goes on in the program for them. What returns is none, or they are not carried.
static __always_inline void hand_over(struct __sk_buff* skb, __u32 program) {
  const void* frame = bytes_of(skb, L4);
  if (!frame) return;
  const struct ip_header* ip = frame + ETH_HLEN;
  if (ip->protocol == IPPROTO_FRAGMENT) bpf_tail_call(skb, &families, program);
}
#endif

// The packet at hand: too much for a stack. Nothing else runs here before it is on its way.
TABLE(BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct outbound, 1, 0, outbounds);

static __always_inline int sandbox6(struct __sk_buff* skb) {
  const __u8 gateway[6] = CUBE_GATEWAY_MAC;
  // The group in which who has the gateway's address is asked for it.
  const __u8 asked[6] = {0x33, 0x33, 0xff, 0, 0, CUBE_GATEWAY6};
  struct settings* set = get_settings();
  __u32 ifindex = skb->ifindex;
  __u32 number = 0;
  struct slot* slot = slot_of(ifindex, &number);
  if (!set || !slot) return TC_ACT_SHOT;
  __u32 zero = 0;
  struct outbound* out = bpf_map_lookup_elem(&outbounds, &zero);
  if (!out) return TC_ACT_SHOT;
  __builtin_memset(out, 0, sizeof(*out));
  out->number = number;
  out->policy = *(volatile __u64*)&slot->policy;
  if (!out->policy) return TC_ACT_SHOT;
  gather(skb);
  const struct ethhdr* ethernet = bytes_of(skb, ETH_HLEN);
  if (!ethernet) return deny(set, skb, 0, out->number, REASON_MALFORMED);
  int to_gateway = same_mac(ethernet->h_dest, gateway);
  if (!to_gateway && !same_mac(ethernet->h_dest, asked)) {
    return deny(set, skb, 0, out->number, REASON_SOURCE);
  }
#ifndef CUBE_FRAGMENTS
  if (is_discovery(skb)) {
    int reason = answer_neighbour(skb);
    if (reason != REASON_ARP) return deny(set, skb, 0, out->number, reason);
    note(set, 0, out->number, skb->len, 0, REASON_ARP);
    return bpf_redirect(ifindex, 0);
  }
#endif
  if (!to_gateway) return deny(set, skb, 0, out->number, REASON_SOURCE);
  hand_over(skb, FAMILY_SANDBOX_FRAGMENT);
  int reason = parse(skb, &out->packet);
  if (reason != REASON_ALLOWED) return deny(set, skb, 0, out->number, reason);
  if (!same_address(out->packet.ip.saddr, GUEST_ADDRESS)) {
    return deny(set, skb, &out->packet, out->number, REASON_SOURCE);
  }
  if (out->packet.ip.ttl <= 1) {
    deny(set, skb, &out->packet, out->number, REASON_TTL);
    int answered = answer_icmp(skb, &out->packet, ERROR_TTL, 0);
    return answered < 0 ? TC_ACT_SHOT : bpf_redirect(ifindex, 0);
  }
  if (!within_rate(out->number, slot, skb->len)) {
    return deny(set, skb, &out->packet, out->number, REASON_RATE);
  }
  out->now = bpf_ktime_get_coarse_ns();
  __u8 kind = FLOW_OUT;
  int is_on = carried && ((out->policy >> 32) & SLOT_IPV6) && !is_no_address(set->snat6);
  reason = is_on ? track_fragment(out, set, slot, &kind) : REASON_IPV6;
  if (reason != REASON_ALLOWED) {
    deny(set, skb, &out->packet, out->number, reason);
    return refuse(skb, &out->packet, ifindex);
  }
  note(set, &out->packet, out->number, skb->len, 0, REASON_ALLOWED);
  count_packet(out->number, skb->len, 0);
  return forward(skb, out, set, kind);
}

static __always_inline int world6(struct __sk_buff* skb) {
  struct settings* set = get_settings();
  if (!set || !carried) return TC_ACT_OK;
  struct inbound in = {};
  gather(skb);
  const void* frame = bytes_of(skb, L4);
  if (!frame) return TC_ACT_OK;
  const struct ip_header* ip = frame + ETH_HLEN;
  // Addresses that exist only inside do not come from, nor go to, the outside.
  if (is_inside(ip->saddr) || is_inside(ip->daddr)) {
    note(set, 0, 0, skb->len, 1, REASON_SPOOFED);
    return TC_ACT_SHOT;
  }
  if (is_no_address(set->snat6) || !same_address(ip->daddr, set->snat6)) return TC_ACT_OK;
  hand_over(skb, FAMILY_WORLD_FRAGMENT);
  if (parse(skb, &in.packet) != REASON_ALLOWED) return TC_ACT_OK;
  in.now = bpf_ktime_get_coarse_ns();
  if (in.packet.later_fragment) {
    return later_inward(&in) == REASON_ALLOWED ? deliver(skb, &in, set) : TC_ACT_OK;
  }
  int reason = track_inward(&in);
  if (reason == REASON_ALLOWED) return deliver(skb, &in, set);
  if (reason == REASON_NO_POLICY) return TC_ACT_SHOT;
  if (!is_peer(in.packet.ip.saddr)) return TC_ACT_OK;
  reason = accept_mapped(&in);
  if (reason == REASON_HOST) return TC_ACT_OK;
  if (reason == REASON_ALLOWED) return deliver(skb, &in, set);
  note(set, &in.packet, in.number, skb->len, 1, reason);
  return TC_ACT_SHOT;
}

// What the host sends to the addresses by which it knows guests. What it forwards has come in
// somewhere, whatever it says of its source.
static __always_inline int host6(struct __sk_buff* skb) {
  struct settings* set = get_settings();
  if (!set || !carried || skb->ingress_ifindex) return TC_ACT_SHOT;
  struct inbound in = {};
  gather(skb);
  hand_over(skb, FAMILY_HOST_FRAGMENT);
  if (parse(skb, &in.packet) != REASON_ALLOWED) return TC_ACT_SHOT;
  // The host's own, not what it forwards for others.
  if (!same_address(in.packet.ip.saddr, host_target(set))) return TC_ACT_SHOT;
  in.now = bpf_ktime_get_coarse_ns();
  if (in.packet.later_fragment) {
    return later_inward(&in) == REASON_ALLOWED ? deliver(skb, &in, set) : TC_ACT_SHOT;
  }
  int reason = track_inward(&in);
  if (reason == REASON_ALLOWED) return deliver(skb, &in, set);
  if (reason == REASON_NO_POLICY || is_no_address(set->snat6)) return TC_ACT_SHOT;
  in.number = bpf_ntohl(in.packet.ip.daddr.words[3]) - 1;
  struct slot* slot = get_slot(in.number);
  if (!slot || !same_address(in.packet.ip.daddr, host_source(slot, in.number))) {
    return TC_ACT_SHOT;
  }
  in.to.source = GATEWAY_ADDRESS;
  reason = accept_flow(&in, in.packet.target_port, FLOW_HOST);
  if (reason == REASON_ALLOWED) return deliver(skb, &in, set);
  note(set, &in.packet, in.number, skb->len, 1, reason);
  return TC_ACT_SHOT;
}

#endif  // CUBE_NET_BPF_FAMILY6_H_
