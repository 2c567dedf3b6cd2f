#ifndef CUBE_NET_BPF_INWARD_H_
#define CUBE_NET_BPF_INWARD_H_

// The way to a guest: the flow that a packet belongs to, or begins from outside.

#include "net/bpf/flow.h"
#include "net/bpf/rewrite.h"

// A packet on its way to a guest.
struct inbound {
  struct packet packet;
  struct rewrite to;
  __u64 now;
  __u32 number;
};

// Fills in `in->to` by the flow that the packet belongs to. REASON_NO_FLOW if there is none.
APART int track_inward(struct inbound* in) {
  struct reverse_key name;
  if (!in) return REASON_NO_FLOW;
  inward_key(&in->packet, &name);
  struct flow_key* key = bpf_map_lookup_elem(&reverse, &name);
  if (!key) return REASON_NO_FLOW;
  struct flow* flow = bpf_map_lookup_elem(&flows, key);
  struct slot* slot = get_slot(key->slot);
  if (!flow || !slot || !is_alive(flow, slot, in->now)) return REASON_NO_FLOW;
  if (flow->source_port != name.source_port || !same_address(flow->source, name.source))
    return REASON_NO_FLOW;
  // One that was begun outside begins anew.
  if (flow->outside && flow->state >= FLOW_TCP_CLOSING && !in->packet.is_error &&
      (in->packet.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN) {
    return REASON_NO_FLOW;
  }
  // The policy has changed: what it refuses ends here, too.
  if (!slot->policy) return REASON_NO_POLICY;
  in->number = key->slot;
  in->to.target = GUEST_ADDRESS;
  // An error may be a router's.
  in->to.source =
      same_address(in->packet.ip.saddr, flow->target) ? key->remote : in->packet.ip.saddr;
  in->to.inner_target = key->remote;
  in->to.target_port = key->local_port;
  in->to.source_port = key->remote_port;
  if (in->packet.ip.protocol == ICMP_PROTOCOL && !in->packet.is_error) {
    in->to.source_port = key->local_port;
  }
  advance(flow, &in->packet, 0, in->now);
  return REASON_ALLOWED;
}

// Enters a flow that the other side begins: `number`'s guest knows its peer as `in->to.source`.
APART int accept_flow(struct inbound* in, __u32 port, __u32 kind) {
  if (!in) return REASON_NO_POLICY;
  struct slot* slot = get_slot(in->number);
  if (!slot || in->packet.is_error) return REASON_NO_POLICY;
  __u64 policy = *(volatile __u64*)&slot->policy;
  if (!policy) return REASON_NO_POLICY;
  if (FAMILY == 6 && !((policy >> 32) & SLOT_IPV6)) return REASON_IPV6;
  __u8 protocol = in->packet.ip.protocol;
  if (protocol == ICMP_PROTOCOL) return REASON_PROTOCOL;
  if (protocol == IPPROTO_TCP && (in->packet.flags & (TCP_SYN | TCP_ACK)) != TCP_SYN) {
    return REASON_NO_FLOW;
  }
  if (slot->flows >= slot->max_flows) return REASON_FLOWS;
  struct flow_key key;
  __builtin_memset(&key, 0, sizeof(key));
  key.slot = in->number;
  key.remote = in->to.source;
  key.local_port = port;
  key.remote_port = in->packet.source_port;
  key.protocol = protocol;
  struct flow flow = {};
  flow.seen = in->now;
  flow.source = in->packet.ip.daddr;
  flow.source_port = in->packet.target_port;
  flow.target = in->packet.ip.saddr;
  flow.target_port = in->packet.source_port;
  flow.state = first_state(protocol);
  flow.kind = kind;
  flow.outside = 1;
  flow.generation = policy;
  flow.epoch = slot->epoch;
  struct reverse_key name;
  reverse_of(&flow, protocol, &name);
  if (bpf_map_update_elem(&reverse, &name, &key, BPF_ANY) != 0) return REASON_FLOWS;
  int reason = add_flow(&key, &flow, slot);
  if (reason != REASON_ALLOWED) return reason;
  in->to.target = GUEST_ADDRESS;
  in->to.source_port = in->packet.source_port;
  in->to.target_port = port;
  return REASON_ALLOWED;
}

// The same for a packet of the world's, if the port that it is for leads to a guest; else
// REASON_HOST.
static __always_inline int accept_mapped(struct inbound* in) {
  struct port_key port = {in->packet.target_port, in->packet.ip.protocol, 0};
  struct port_target* mapped = bpf_map_lookup_elem(&ports, &port);
  if (!mapped) return REASON_HOST;
  struct slot* slot = get_slot(mapped->slot);
  if (!slot || slot->epoch != mapped->epoch) return REASON_HOST;
  in->number = mapped->slot;
  in->to.source = in->packet.ip.saddr;
  return accept_flow(in, mapped->port, FLOW_IN);
}

#ifdef CARRIES_FRAGMENTS
// Of fragments from outside, all but the first are known by it, over which they may not lie.
APART int later_inward(struct inbound* in) {
  struct fragment_key name;
  if (!in) return REASON_FRAGMENT;
  fragment_name(&in->packet, 0, &name);
  struct fragment* known = bpf_map_lookup_elem(&fragments, &name);
  if (!known || in->now > known->until || in->packet.edge < known->end) return REASON_FRAGMENT;
  struct slot* slot = get_slot(known->slot);
  if (!slot || slot->epoch != known->generation) return REASON_FRAGMENT;
  in->to.source = known->source;
  in->to.target = GUEST_ADDRESS;
  in->to.identifier = known->identifier;
  in->number = known->slot;
  return REASON_ALLOWED;
}

// Remembers a first one, which is to go as `in->to` says.
APART int keep_inward(struct inbound* in) {
  struct fragment_key name;
  struct slot* slot = in ? get_slot(in->number) : 0;
  if (!slot) return 0;
  fragment_name(&in->packet, 0, &name);
  struct fragment fresh = {};
  fresh.until = in->now + CUBE_FRAGMENT_NS;
  fresh.source = in->to.source;
  fresh.slot = in->number;
  fresh.generation = slot->epoch;
  fresh.identifier = bpf_get_prandom_u32();
  fresh.end = in->packet.edge;
  in->to.identifier = fresh.identifier;
  return bpf_map_update_elem(&fragments, &name, &fresh, BPF_ANY);
}
#else
static __always_inline int later_inward(struct inbound* in) { return REASON_FRAGMENT; }
static __always_inline void keep_inward(struct inbound* in) {}
#endif

// Hands a packet that belongs to a flow to its guest.
static __always_inline int deliver(struct __sk_buff* skb, struct inbound* in,
                                   const struct settings* set) {
  const __u8 guest[6] = CUBE_GUEST_MAC, gateway[6] = CUBE_GATEWAY_MAC;
  struct slot* slot = get_slot(in->number);
  if (!slot || in->packet.ip.ttl <= 1) return TC_ACT_SHOT;
  if (in->packet.fragmented && !in->packet.later_fragment) keep_inward(in);
  if (rewrite_packet(skb, &in->packet, &in->to) < 0) return TC_ACT_SHOT;
  if (write_macs(skb, guest, gateway) < 0) return TC_ACT_SHOT;
  note(set, &in->packet, in->number, skb->len, 1, REASON_ALLOWED);
  count_packet(in->number, skb->len, 1);
  return bpf_redirect(slot->ifindex, 0);
}

#endif  // CUBE_NET_BPF_INWARD_H_
