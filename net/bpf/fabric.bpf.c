// The network fabric: three programs and a filter before them (docs/network.md).

#include "net/bpf/answer.h"
#include "net/bpf/flow.h"
#include "net/bpf/policy.h"

char LICENSE[] SEC("license") = "GPL";

// A packet that came from the guest of slot `number`.
struct outbound {
  struct packet packet;
  struct flow_key key;
  struct rewrite to;
  struct verdict verdict;
  __u64 now;
  __u64 policy;
  __u32 number;
};

static __always_inline __u32 error_reply(__u32 type, __u32 code) { return type << 8 | code; }

// Chooses where the new flow of a packet goes. REASON_ALLOWED or why it goes nowhere.
APART int open_flow(struct outbound* out, const struct settings* set, struct slot* slot,
                    struct flow* flow) {
  if (!out || !set || !slot || !flow) return REASON_NO_POLICY;
  __u32 range = set->first_port | (__u32)set->last_port << 16;
  __u8 protocol = out->key.protocol;
  if (out->packet.is_error) return REASON_NO_FLOW;
  if (protocol == IPPROTO_TCP && (out->packet.flags & (TCP_SYN | TCP_ACK)) != TCP_SYN) {
    return REASON_NO_FLOW;
  }
  if (protocol == IPPROTO_ICMP && out->packet.icmp_type != ICMP_ECHO_REQUEST) {
    return REASON_NO_FLOW;
  }
  __builtin_memset(flow, 0, sizeof(*flow));
  flow->target = out->key.remote;
  flow->target_port = out->key.remote_port;
  if (out->key.remote == GATEWAY_ADDRESS) {
    if (out->key.remote_port != bpf_htons(53) || !set->resolver_port || protocol == IPPROTO_ICMP) {
      return REASON_HOST;
    }
    flow->kind = FLOW_RESOLVER;
    flow->target = set->host_address;
    flow->target_port = set->resolver_port;
    flow->source = slot->host_address;
  } else {
    judge(&out->key, slot, out->policy, out->now, &out->verdict);
    if (out->verdict.reason != REASON_ALLOWED) return out->verdict.reason;
    flow->kind = out->verdict.kind;
    if (flow->kind == FLOW_PEEKED) {
      if (!set->peek_port) return REASON_POLICY;
      flow->target = set->host_address;
      flow->target_port = set->peek_port;
      flow->source = slot->host_address;
    } else {
      __u32 which = out->number % (set->snat_count ? set->snat_count : 1);
      flow->source = set->snat[which & (CUBE_MAX_SNAT - 1)];
      if (!set->uplink || !flow->source) return REASON_NO_POLICY;
    }
  }
  if (slot->flows >= slot->max_flows) return REASON_FLOWS;
  flow->seen = out->now;
  flow->state = first_state(protocol);
  flow->generation = out->policy;
  flow->epoch = slot->epoch;
  int chosen = choose_port(&out->key, flow, range, out->now);
  if (chosen != REASON_ALLOWED) return chosen;
  return add_flow(&out->key, flow, slot);
}

// A flow that was let through by an earlier policy.
APART int judge_again(struct outbound* out, struct slot* slot, struct flow* flow) {
  if (!out || !slot || !flow) return REASON_NO_POLICY;
  if (flow->kind == FLOW_OUT || flow->kind == FLOW_PEEKED) {
    judge(&out->key, slot, out->policy, out->now, &out->verdict);
    if (out->verdict.reason != REASON_ALLOWED) return out->verdict.reason;
    // It cannot be led elsewhere in the middle.
    if (out->verdict.kind != flow->kind) return REASON_POLICY;
  }
  flow->generation = out->policy;
  return REASON_ALLOWED;
}

// Fills in `out->to` for the packet's flow, which it may begin.
static __always_inline int track(struct outbound* out, const struct settings* set,
                                 struct slot* slot, __u8* kind) {
  outward_key(&out->packet, out->number, &out->key);
  struct flow fresh;
  struct flow* flow = bpf_map_lookup_elem(&flows, &out->key);
  if (flow) {
    int over = !is_alive(flow, slot, out->now);
    // The port is used again.
    if (out->key.protocol == IPPROTO_TCP && flow->state >= FLOW_TCP_CLOSING &&
        (out->packet.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN) {
      over = 1;
    }
    if (over) {
      drop_flow(&out->key, flow);
      flow = 0;
    }
  }
  if (flow) {
    if (flow->generation != (__u32)out->policy) {
      int reason = judge_again(out, slot, flow);
      if (reason != REASON_ALLOWED) {
        drop_flow(&out->key, flow);
        return reason;
      }
    }
  } else {
    int reason = open_flow(out, set, slot, &fresh);
    if (reason != REASON_ALLOWED) return reason;
    flow = &fresh;
  }
  out->to.source = flow->source;
  out->to.target = flow->target;
  out->to.source_port = flow->source_port;
  out->to.target_port = flow->target_port;
  if (out->packet.ip.protocol == IPPROTO_ICMP && !out->packet.is_error) {
    out->to.target_port = flow->source_port;
  }
  out->to.inner_target = flow->source;
  *kind = flow->kind;
  if (flow != &fresh) advance(flow, &out->packet, 1, out->now);
  return REASON_ALLOWED;
}

static __always_inline int goes_to_world(__u8 kind) { return kind == FLOW_OUT || kind == FLOW_IN; }

static __always_inline void fragment_name(const struct packet* packet, __u32 slot,
                                          struct fragment_key* key) {
  __builtin_memset(key, 0, sizeof(*key));
  key->slot = slot;
  key->source = packet->ip.saddr;
  key->target = packet->ip.daddr;
  key->identifier = packet->ip.id;
  key->protocol = packet->ip.protocol;
}

// Fragments of guests that share an address would be taken for one another's by their receiver:
// they get identifiers of the node's.
static __always_inline int track_fragment(struct outbound* out, const struct settings* set,
                                          struct slot* slot, __u8* kind) {
  struct fragment_key name;
  fragment_name(&out->packet, out->number, &name);
  if (out->packet.later_fragment) {
    struct fragment* known = bpf_map_lookup_elem(&fragments, &name);
    if (!known || out->now > known->until || known->generation != (__u32)out->policy) {
      return REASON_FRAGMENT;
    }
    out->to.source = known->source;
    out->to.target = known->target;
    out->to.identifier = known->identifier;
    *kind = known->kind;
    return REASON_ALLOWED;
  }
  int reason = track(out, set, slot, kind);
  if (reason != REASON_ALLOWED) return reason;
  struct fragment fresh = {};
  fresh.until = out->now + CUBE_FRAGMENT_NS;
  fresh.source = out->to.source;
  fresh.target = out->to.target;
  fresh.slot = out->number;
  fresh.generation = out->policy;
  fresh.identifier = bpf_get_prandom_u32();
  fresh.kind = *kind;
  out->to.identifier = fresh.identifier;
  bpf_map_update_elem(&fragments, &name, &fresh, BPF_ANY);
  return REASON_ALLOWED;
}

static __always_inline int deny(const struct settings* set, struct __sk_buff* skb,
                                const struct packet* packet, __u32 slot, __u32 reason) {
  note(set, packet, slot, skb->len, 0, reason);
  count_denied(slot);
  return TC_ACT_SHOT;
}

// Sends what is in order on its way.
static __always_inline int forward(struct __sk_buff* skb, struct outbound* out,
                                   const struct settings* set, __u8 kind) {
  const __u8 gateway[6] = CUBE_GATEWAY_MAC;
  if (goes_to_world(kind)) {
    __u32 mtu = 0;
    long fits = bpf_check_mtu(skb, set->uplink, &mtu, 0, BPF_MTU_CHK_SEGS);
    if (fits > 0) {
      deny(set, skb, &out->packet, out->number, REASON_TOO_BIG);
      if (answer_icmp(skb, &out->packet, error_reply(ICMP_UNREACHABLE, 4), bpf_htonl(mtu)) < 0) {
        return TC_ACT_SHOT;
      }
      return bpf_redirect(skb->ifindex, 0);
    }
    if (rewrite_packet(skb, &out->packet, &out->to) < 0) return TC_ACT_SHOT;
    return bpf_redirect_neigh(set->uplink, 0, 0, 0);
  }
  if (rewrite_packet(skb, &out->packet, &out->to) < 0) return TC_ACT_SHOT;
  if (set_macs(skb, set->host_mac, gateway) < 0) return TC_ACT_SHOT;
  return bpf_redirect(set->host, BPF_F_INGRESS);
}

// What a TAP hands over: a frame of a guest.
SEC("tc")
int from_sandbox(struct __sk_buff* skb) {
  const __u8 guest[6] = CUBE_GUEST_MAC, gateway[6] = CUBE_GATEWAY_MAC;
  struct settings* set = get_settings();
  if (!set) return TC_ACT_SHOT;
  __u32 ifindex = skb->ifindex;
  __u32* number = bpf_map_lookup_elem(&taps, &ifindex);
  struct slot* slot = number ? get_slot(*number) : 0;
  if (!slot) return deny(set, skb, 0, 0, REASON_NO_SLOT);
  struct outbound out = {.number = *number};
  out.policy = *(volatile __u64*)&slot->policy;
  if (!out.policy) return deny(set, skb, 0, out.number, REASON_NO_POLICY);
  if (skb->vlan_present) return deny(set, skb, 0, out.number, REASON_VLAN);
  struct ethhdr ethernet;
  if (bpf_skb_load_bytes(skb, 0, &ethernet, sizeof(ethernet)) < 0) {
    return deny(set, skb, 0, out.number, REASON_MALFORMED);
  }
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
    int answered = answer_icmp(skb, &out.packet, error_reply(ICMP_TIME_EXCEEDED, 0), 0);
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

// A packet on its way to a guest.
struct inbound {
  struct packet packet;
  struct rewrite to;
  struct flow_key key;
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
  if (flow->source_port != name.source_port || flow->source != name.source) return REASON_NO_FLOW;
  // One that was begun outside begins anew.
  if (flow->outside && flow->state >= FLOW_TCP_CLOSING && !in->packet.is_error &&
      (in->packet.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN) {
    return REASON_NO_FLOW;
  }
  // The policy has changed: what it refuses ends here, too.
  if (!slot->policy) return REASON_NO_POLICY;
  in->number = key->slot;
  in->key = *key;
  in->to.target = GUEST_ADDRESS;
  // An error may be a router's.
  in->to.source = in->packet.ip.saddr == flow->target ? key->remote : in->packet.ip.saddr;
  in->to.inner_target = key->remote;
  in->to.target_port = key->local_port;
  in->to.source_port = key->remote_port;
  if (in->packet.ip.protocol == IPPROTO_ICMP && !in->packet.is_error) {
    in->to.source_port = key->local_port;
  }
  advance(flow, &in->packet, 0, in->now);
  return REASON_ALLOWED;
}

// Enters a flow that the other side begins: `number`'s guest knows its peer as `remote`.
APART int accept_flow(struct inbound* in, __u32 remote, __u32 port, __u32 kind) {
  if (!in) return REASON_NO_POLICY;
  struct slot* slot = get_slot(in->number);
  if (!slot || !slot->policy || in->packet.is_error) return REASON_NO_POLICY;
  __u8 protocol = in->packet.ip.protocol;
  if (protocol == IPPROTO_ICMP) return REASON_PROTOCOL;
  if (protocol == IPPROTO_TCP && (in->packet.flags & (TCP_SYN | TCP_ACK)) != TCP_SYN) {
    return REASON_NO_FLOW;
  }
  if (slot->flows >= slot->max_flows) return REASON_FLOWS;
  __builtin_memset(&in->key, 0, sizeof(in->key));
  in->key.slot = in->number;
  in->key.remote = remote;
  in->key.local_port = port;
  in->key.remote_port = in->packet.source_port;
  in->key.protocol = protocol;
  struct flow flow = {};
  flow.seen = in->now;
  flow.source = in->packet.ip.daddr;
  flow.source_port = in->packet.target_port;
  flow.target = in->packet.ip.saddr;
  flow.target_port = in->packet.source_port;
  flow.state = first_state(protocol);
  flow.kind = kind;
  flow.outside = 1;
  flow.generation = slot->policy;
  flow.epoch = slot->epoch;
  struct reverse_key name;
  reverse_of(&flow, protocol, &name);
  if (bpf_map_update_elem(&reverse, &name, &in->key, BPF_ANY) != 0) return REASON_FLOWS;
  int reason = add_flow(&in->key, &flow, slot);
  if (reason != REASON_ALLOWED) return reason;
  in->to.source = remote;
  in->to.target = GUEST_ADDRESS;
  in->to.source_port = in->packet.source_port;
  in->to.target_port = port;
  return REASON_ALLOWED;
}

// Of fragments from outside, all but the first are known by it.
static __always_inline int later_inward(struct inbound* in) {
  struct fragment_key name;
  fragment_name(&in->packet, 0, &name);
  struct fragment* known = bpf_map_lookup_elem(&fragments, &name);
  if (!known || in->now > known->until) return REASON_FRAGMENT;
  struct slot* slot = get_slot(known->slot);
  if (!slot || slot->epoch != known->generation) return REASON_FRAGMENT;
  in->to.source = known->source;
  in->to.target = GUEST_ADDRESS;
  in->to.identifier = known->identifier;
  in->number = known->slot;
  return REASON_ALLOWED;
}

static __always_inline void keep_fragment(struct inbound* in, const struct slot* slot) {
  struct fragment_key name;
  fragment_name(&in->packet, 0, &name);
  struct fragment fresh = {};
  fresh.until = in->now + CUBE_FRAGMENT_NS;
  fresh.source = in->to.source;
  fresh.slot = in->number;
  fresh.generation = slot->epoch;
  fresh.identifier = bpf_get_prandom_u32();
  in->to.identifier = fresh.identifier;
  bpf_map_update_elem(&fragments, &name, &fresh, BPF_ANY);
}

// Hands a packet that belongs to a flow to its guest.
static __always_inline int deliver(struct __sk_buff* skb, struct inbound* in,
                                   const struct settings* set) {
  const __u8 guest[6] = CUBE_GUEST_MAC, gateway[6] = CUBE_GATEWAY_MAC;
  struct slot* slot = get_slot(in->number);
  if (!slot || in->packet.ip.ttl <= 1) return TC_ACT_SHOT;
  if (in->packet.fragmented && !in->packet.later_fragment) keep_fragment(in, slot);
  if (rewrite_packet(skb, &in->packet, &in->to) < 0) return TC_ACT_SHOT;
  if (set_macs(skb, guest, gateway) < 0) return TC_ACT_SHOT;
  note(set, &in->packet, in->number, skb->len, 1, REASON_ALLOWED);
  count_packet(in->number, skb->len, 1);
  return bpf_redirect(slot->ifindex, 0);
}

// What the uplink receives: answers to what guests have sent, and what comes to mapped ports. All
// else is the host's.
SEC("tc")
int from_world(struct __sk_buff* skb) {
  struct settings* set = get_settings();
  if (!set || skb->vlan_present || skb->protocol != bpf_htons(ETH_P_IP)) return TC_ACT_OK;
  struct inbound in = {};
  if (parse(skb, &in.packet) != REASON_ALLOWED) return TC_ACT_OK;
  in.now = bpf_ktime_get_coarse_ns();
  if (in.packet.later_fragment) {
    if (later_inward(&in) != REASON_ALLOWED) return TC_ACT_OK;
    return deliver(skb, &in, set);
  }
  int reason = track_inward(&in);
  if (reason == REASON_ALLOWED) return deliver(skb, &in, set);
  if (reason == REASON_NO_POLICY) return TC_ACT_SHOT;
  struct port_key port = {in.packet.target_port, in.packet.ip.protocol, 0};
  struct port_target* mapped = bpf_map_lookup_elem(&ports, &port);
  if (!mapped) return TC_ACT_OK;
  int ours = 0;
#pragma unroll
  for (int i = 0; i < CUBE_MAX_SNAT; i++) {
    if (set->snat[i] && set->snat[i] == in.packet.ip.daddr) ours = 1;
  }
  struct slot* slot = get_slot(mapped->slot);
  if (!ours || !slot || slot->epoch != mapped->epoch) return TC_ACT_OK;
  in.number = mapped->slot;
  reason = accept_flow(&in, in.packet.ip.saddr, mapped->port, FLOW_IN);
  if (reason == REASON_ALLOWED) return deliver(skb, &in, set);
  note(set, &in.packet, in.number, skb->len, 1, reason);
  return TC_ACT_SHOT;
}

// What the host sends to the addresses by which it knows guests. None of it goes anywhere else.
SEC("tc")
int from_host(struct __sk_buff* skb) {
  struct settings* set = get_settings();
  if (!set || skb->protocol != bpf_htons(ETH_P_IP)) return TC_ACT_SHOT;
  struct inbound in = {};
  if (parse(skb, &in.packet) != REASON_ALLOWED) return TC_ACT_SHOT;
  // The host's own, not what it forwards for others.
  if (in.packet.ip.saddr != set->host_address) return TC_ACT_SHOT;
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
  reason = accept_flow(&in, GATEWAY_ADDRESS, in.packet.target_port, FLOW_HOST);
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
