// The network fabric: three programs and a filter before them (docs/network.md).

#include "net/bpf/inward.h"
#include "net/bpf/outward.h"
#include "net/bpf/parse4.h"

char LICENSE[] SEC("license") = "GPL";

// What a TAP hands over: a frame of a guest.
SEC("tc")
int from_sandbox(struct __sk_buff* skb) {
  const __u8 guest[6] = CUBE_GUEST_MAC, gateway[6] = CUBE_GATEWAY_MAC;
  struct settings* set = get_settings();
  if (!set) return TC_ACT_SHOT;
  __u32 ifindex = skb->ifindex;
  __u32 number = 0;
  struct slot* slot = slot_of(ifindex, &number);
  if (!slot) return deny(set, skb, 0, 0, REASON_NO_SLOT);
  struct outbound out = {.number = number};
  out.policy = *(volatile __u64*)&slot->policy;
  if (!out.policy) return deny(set, skb, 0, out.number, REASON_NO_POLICY);
  if (skb->vlan_present) return deny(set, skb, 0, out.number, REASON_VLAN);
  gather(skb);
  const struct ethhdr* frame = bytes_of(skb, ETH_HLEN);
  if (!frame) return deny(set, skb, 0, out.number, REASON_MALFORMED);
  const struct ethhdr ethernet = *frame;
  if (!same_mac(ethernet.h_source, guest)) return deny(set, skb, 0, out.number, REASON_SOURCE);
  switch (ethernet.h_proto) {
    case bpf_htons(ETH_P_IP):
      break;
    case bpf_htons(ETH_P_ARP): {
      int reason = answer_arp(skb);
      if (reason != REASON_ARP) return deny(set, skb, 0, out.number, reason);
      note(set, 0, out.number, skb->len, 0, REASON_ARP);
      return bpf_redirect(ifindex, 0);
    }
    case bpf_htons(ETH_P_IPV6):
      bpf_tail_call(skb, &families, FAMILY_SANDBOX);
      return deny(set, skb, 0, out.number, REASON_IPV6);
    case bpf_htons(ETH_P_8021Q):
    case bpf_htons(ETH_P_8021AD):
      return deny(set, skb, 0, out.number, REASON_VLAN);
    default:
      return deny(set, skb, 0, out.number, REASON_ETHERTYPE);
  }
  if (!same_mac(ethernet.h_dest, gateway)) return deny(set, skb, 0, out.number, REASON_SOURCE);
  int reason = parse(skb, &out.packet);
  if (reason != REASON_ALLOWED) return deny(set, skb, 0, out.number, reason);
  if (out.packet.ip.saddr != GUEST_ADDRESS) {
    return deny(set, skb, &out.packet, out.number, REASON_SOURCE);
  }
  if (out.packet.ip.ttl <= 1) {
    deny(set, skb, &out.packet, out.number, REASON_TTL);
    int answered = answer_icmp(skb, &out.packet, ERROR_TTL, 0);
    return answered < 0 ? TC_ACT_SHOT : bpf_redirect(ifindex, 0);
  }
  if (!within_rate(out.number, slot, skb->len)) {
    return deny(set, skb, &out.packet, out.number, REASON_RATE);
  }
  out.now = bpf_ktime_get_coarse_ns();
  __u8 kind = FLOW_OUT;
  reason = out.packet.fragmented ? track_fragment(&out, set, slot, &kind)
                                 : track(&out, set, slot, &kind);
  if (reason != REASON_ALLOWED) {
    deny(set, skb, &out.packet, out.number, reason);
    return refuse(skb, &out.packet, ifindex);
  }
  note(set, &out.packet, out.number, skb->len, 0, REASON_ALLOWED);
  count_packet(out.number, skb->len, 0);
  return forward(skb, &out, set, kind);
}

// What the uplink receives: answers to what guests have sent, and what comes to mapped ports. All
// else is the host's.
SEC("tc")
int from_world(struct __sk_buff* skb) {
  struct settings* set = get_settings();
  if (!set || skb->vlan_present) return TC_ACT_OK;
  if (skb->protocol == bpf_htons(ETH_P_IPV6)) bpf_tail_call(skb, &families, FAMILY_WORLD);
  if (skb->protocol != bpf_htons(ETH_P_IP)) return TC_ACT_OK;
  struct inbound in = {};
  gather(skb);
  if (parse(skb, &in.packet) != REASON_ALLOWED) return TC_ACT_OK;
  in.now = bpf_ktime_get_coarse_ns();
  if (in.packet.later_fragment) {
    if (later_inward(&in) != REASON_ALLOWED) return TC_ACT_OK;
    return deliver(skb, &in, set);
  }
  int reason = track_inward(&in);
  if (reason == REASON_ALLOWED) return deliver(skb, &in, set);
  if (reason == REASON_NO_POLICY) return TC_ACT_SHOT;
  int ours = 0;
#pragma unroll
  for (int i = 0; i < CUBE_MAX_SNAT; i++) {
    if (set->snat[i] && set->snat[i] == in.packet.ip.daddr) ours = 1;
  }
  ours = ours && is_peer(in.packet.ip.saddr);
  reason = ours ? accept_mapped(&in) : REASON_HOST;
  if (reason == REASON_HOST) return TC_ACT_OK;
  if (reason == REASON_ALLOWED) return deliver(skb, &in, set);
  note(set, &in.packet, in.number, skb->len, 1, reason);
  return TC_ACT_SHOT;
}

// What the host sends to the addresses by which it knows guests. None of it goes anywhere else.
SEC("tc")
int from_host(struct __sk_buff* skb) {
  struct settings* set = get_settings();
  if (skb->protocol == bpf_htons(ETH_P_IPV6)) bpf_tail_call(skb, &families, FAMILY_HOST);
  if (!set || skb->protocol != bpf_htons(ETH_P_IP)) return TC_ACT_SHOT;
  struct inbound in = {};
  gather(skb);
  if (parse(skb, &in.packet) != REASON_ALLOWED) return TC_ACT_SHOT;
  // The host's own, not what it forwards for others, which has come in somewhere.
  if (skb->ingress_ifindex || in.packet.ip.saddr != set->host_address) return TC_ACT_SHOT;
  in.now = bpf_ktime_get_coarse_ns();
  if (in.packet.later_fragment) {
    if (later_inward(&in) != REASON_ALLOWED) return TC_ACT_SHOT;
    return deliver(skb, &in, set);
  }
  int reason = track_inward(&in);
  if (reason == REASON_ALLOWED) return deliver(skb, &in, set);
  if (reason == REASON_NO_POLICY) return TC_ACT_SHOT;
  // The number of a slot is where its address is in the network of them all.
  in.number = bpf_ntohl(in.packet.ip.daddr & ~set->host_mask) - 1;
  struct slot* slot = get_slot(in.number);
  if (!slot || slot->host_address != in.packet.ip.daddr) return TC_ACT_SHOT;
  in.to.source = GATEWAY_ADDRESS;
  reason = accept_flow(&in, in.packet.target_port, FLOW_HOST);
  if (reason != REASON_ALLOWED) {
    note(set, &in.packet, in.number, skb->len, 1, reason);
    return TC_ACT_SHOT;
  }
  return deliver(skb, &in, set);
}

// Before from_world, and before the host: addresses that exist only inside do not come from, nor
// go to, the outside.
SEC("tc")
int early_filter(struct __sk_buff* skb) {
  struct settings* set = get_settings();
  struct iphdr ip;
  if (!set || skb->protocol != bpf_htons(ETH_P_IP)) return TC_ACT_UNSPEC;
  if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) < 0) return TC_ACT_UNSPEC;
  const __u32 inner_mask = bpf_htonl(0xfffffffc);
  if ((ip.saddr & set->host_mask) != set->host_network &&
      (ip.daddr & set->host_mask) != set->host_network &&
      (ip.saddr & inner_mask) != (GUEST_ADDRESS & inner_mask) &&
      (ip.daddr & inner_mask) != (GUEST_ADDRESS & inner_mask)) {
    return TC_ACT_UNSPEC;
  }
  note(set, 0, 0, skb->len, 1, REASON_SPOOFED);
  return TC_ACT_SHOT;
}
