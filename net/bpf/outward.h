#ifndef CUBE_NET_BPF_OUTWARD_H_
#define CUBE_NET_BPF_OUTWARD_H_

// The way of a guest's packet: its flow, begun or judged again, and where it is sent.

#include "net/bpf/answer.h"
#include "net/bpf/flow.h"
#include "net/bpf/policy.h"

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

// Chooses where the new flow of a packet goes. REASON_ALLOWED or why it goes nowhere.
APART int open_flow(struct outbound* out, const struct settings* set, struct slot* slot,
                    struct flow* flow) {
  if (!out || !set || !slot || !flow) return REASON_NO_POLICY;
  __u8 protocol = out->key.protocol;
  if (out->packet.is_error) return REASON_NO_FLOW;
  if (protocol == IPPROTO_TCP && (out->packet.flags & (TCP_SYN | TCP_ACK)) != TCP_SYN) {
    return REASON_NO_FLOW;
  }
  if (protocol == ICMP_PROTOCOL && out->packet.icmp_type != ICMP_ECHO_REQUEST) {
    return REASON_NO_FLOW;
  }
  __builtin_memset(flow, 0, sizeof(*flow));
  flow->target = out->key.remote;
  flow->target_port = out->key.remote_port;
  if (same_address(out->key.remote, GATEWAY_ADDRESS)) {
    if (out->key.remote_port != bpf_htons(53) || !resolver_port(set) || protocol == ICMP_PROTOCOL) {
      return REASON_HOST;
    }
    flow->kind = FLOW_RESOLVER;
    flow->target = host_target(set);
    flow->target_port = resolver_port(set);
    flow->source = host_source(slot, out->number);
  } else {
    judge(&out->key, slot, out->policy, out->now, &out->verdict);
    if (out->verdict.reason != REASON_ALLOWED) return out->verdict.reason;
    flow->kind = out->verdict.kind;
    if (flow->kind == FLOW_PEEKED) {
      if (!peek_port(set)) return REASON_POLICY;
      flow->target = host_target(set);
      flow->target_port = peek_port(set);
      flow->source = host_source(slot, out->number);
    } else {
      flow->source = world_source(set, out->number);
      if (!set->uplink || is_no_address(flow->source)) return REASON_NO_POLICY;
    }
  }
  if (slot->flows >= slot->max_flows) return REASON_FLOWS;
  flow->seen = out->now;
  flow->state = first_state(protocol);
  flow->generation = out->policy;
  flow->epoch = slot->epoch;
  return REASON_ALLOWED;
}

// Enters it, under a name that no other has. Not within open_flow(): the stack is small.
APART int enter_flow(const struct outbound* out, const struct settings* set, struct slot* slot,
                     struct flow* flow) {
  if (!out || !set || !slot || !flow) return REASON_NO_POLICY;
  __u32 range = set->first_port | (__u32)set->last_port << 16;
  int chosen = choose_port(&out->key, flow, range, out->now);
  if (chosen != REASON_ALLOWED) return chosen;
  struct flow_key key = out->key;
  struct flow value = *flow;
  int added = add_flow(&key, &value, slot);
  if (added != REASON_ALLOWED || owns_name(&key, &value)) return added;
  // Another processor has taken the name for dead while the flow was not there yet.
  bpf_map_delete_elem(&flows, &key);
  return REASON_PORTS;
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
    } else if (flow->outside && out->key.protocol == IPPROTO_TCP &&
               (out->packet.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN) {
      // Who was called answers. Else a forged call would have a guest reach whoever it names.
      return REASON_NO_FLOW;
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
    if (reason == REASON_ALLOWED) reason = enter_flow(out, set, slot, &fresh);
    if (reason != REASON_ALLOWED) return reason;
    flow = &fresh;
  }
  out->to.source = flow->source;
  out->to.target = flow->target;
  out->to.source_port = flow->source_port;
  out->to.target_port = flow->target_port;
  if (out->packet.ip.protocol == ICMP_PROTOCOL && !out->packet.is_error) {
    out->to.target_port = flow->source_port;
  }
  out->to.inner_target = flow->source;
  *kind = flow->kind;
  if (flow != &fresh) advance(flow, &out->packet, 1, out->now);
  return REASON_ALLOWED;
}

static __always_inline int goes_to_world(__u8 kind) { return kind == FLOW_OUT || kind == FLOW_IN; }

#ifdef CARRIES_FRAGMENTS
// A fragment after the first one goes where that has gone, if it does not lie over it.
APART int follow_outward(struct outbound* out) {
  struct fragment_key name;
  if (!out) return REASON_FRAGMENT;
  fragment_name(&out->packet, out->number, &name);
  struct fragment* known = bpf_map_lookup_elem(&fragments, &name);
  if (!known || out->now > known->until || known->generation != (__u32)out->policy ||
      out->packet.edge < known->end) {
    return REASON_FRAGMENT;
  }
  out->to.source = known->source;
  out->to.target = known->target;
  out->to.identifier = known->identifier;
  out->verdict.kind = known->kind;
  return REASON_ALLOWED;
}

// Remembers a first one, which is to go as `out->to` says.
APART int keep_outward(struct outbound* out, __u32 kind) {
  struct fragment_key name;
  if (!out) return 0;
  fragment_name(&out->packet, out->number, &name);
  struct fragment fresh = {};
  fresh.until = out->now + CUBE_FRAGMENT_NS;
  fresh.source = out->to.source;
  fresh.target = out->to.target;
  fresh.slot = out->number;
  fresh.generation = out->policy;
  fresh.identifier = bpf_get_prandom_u32();
  fresh.end = out->packet.edge;
  fresh.kind = kind;
  out->to.identifier = fresh.identifier;
  return bpf_map_update_elem(&fragments, &name, &fresh, BPF_ANY);
}

// Fragments of guests that share an address would be taken for one another's by their receiver:
// they get identifiers of the node's.
static __always_inline int track_fragment(struct outbound* out, const struct settings* set,
                                          struct slot* slot, __u8* kind) {
  if (out->packet.later_fragment) {
    int known = follow_outward(out);
    *kind = out->verdict.kind;
    return known;
  }
  int reason = track(out, set, slot, kind);
  if (reason == REASON_ALLOWED && out->packet.fragmented) keep_outward(out, *kind);
  return reason;
}
#else
static __always_inline int track_fragment(struct outbound* out, const struct settings* set,
                                          struct slot* slot, __u8* kind) {
  return track(out, set, slot, kind);
}
#endif

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
    // The helper knows what a segment of many has, and a device that was changed just now.
    if (skb->len > set->mtu + ETH_HLEN &&
        bpf_check_mtu(skb, set->uplink, &mtu, 0, BPF_MTU_CHK_SEGS) > 0) {
      deny(set, skb, &out->packet, out->number, REASON_TOO_BIG);
      if (answer_icmp(skb, &out->packet, ERROR_TOO_BIG, bpf_htonl(mtu)) < 0) {
        return TC_ACT_SHOT;
      }
      return bpf_redirect(skb->ifindex, 0);
    }
    if (rewrite_packet(skb, &out->packet, &out->to) < 0) return TC_ACT_SHOT;
    return bpf_redirect_neigh(set->uplink, 0, 0, 0);
  }
  if (rewrite_packet(skb, &out->packet, &out->to) < 0) return TC_ACT_SHOT;
  if (write_macs(skb, set->host_mac, gateway) < 0) return TC_ACT_SHOT;
  return bpf_redirect(set->host, BPF_F_INGRESS);
}

#endif  // CUBE_NET_BPF_OUTWARD_H_
