#ifndef CUBE_NET_BPF_FLOW_H_
#define CUBE_NET_BPF_FLOW_H_

// Connection tracking and the choice of source ports.

#include "net/bpf/packet.h"

#define PORT_TRIES 64
// After so many a connection that is closed, but not forgotten yet, gives its port away.
#define PORT_TRIES_SPARING 8

static __always_inline __u8 flow_protocol(const struct packet* packet) {
  return packet->is_error ? packet->inner_protocol : packet->ip.protocol;
}

static __always_inline void outward_key(const struct packet* packet, __u32 slot,
                                        struct flow_key* key) {
  __builtin_memset(key, 0, sizeof(*key));
  key->slot = slot;
  key->remote = packet->ip.daddr;
  key->local_port = packet->source_port;
  key->protocol = flow_protocol(packet);
  key->remote_port = key->protocol == ICMP_PROTOCOL ? 0 : packet->target_port;
}

static __always_inline void inward_key(const struct packet* packet, struct reverse_key* key) {
  __builtin_memset(key, 0, sizeof(*key));
  key->target = packet->is_error ? packet->inner_target : packet->ip.saddr;
  key->source = packet->ip.daddr;
  key->source_port = packet->target_port;
  key->protocol = flow_protocol(packet);
  key->target_port = key->protocol == ICMP_PROTOCOL ? 0 : packet->source_port;
}

static __always_inline void reverse_of(const struct flow* flow, __u8 protocol,
                                       struct reverse_key* key) {
  __builtin_memset(key, 0, sizeof(*key));
  key->target = flow->target;
  key->source = flow->source;
  key->target_port = flow->target_port;
  key->source_port = flow->source_port;
  key->protocol = protocol;
}

static __always_inline int is_alive(const struct flow* flow, const struct slot* slot, __u64 now) {
  return flow->epoch == slot->epoch && now - flow->seen < flow_timeout(flow->state);
}

// What a packet that was let through does to its flow. `outward`: it comes from the guest.
static __always_inline void advance(struct flow* flow, const struct packet* packet, int outward,
                                    __u64 now) {
  if (packet->is_error) return;  // of no one's life a sign
  int by_beginner = outward != flow->outside;
  __u8 state = flow->state;
  if (packet->ip.protocol == IPPROTO_TCP) {
    if (packet->flags & TCP_RST) {
      state = FLOW_TCP_CLOSED;
    } else if (packet->flags & TCP_FIN) {
      // The direction of the first FIN is kept in `pad`: 1 outward, 2 inward.
      __u8 side = outward ? 1 : 2;
      if (state == FLOW_TCP_CLOSING && flow->pad != side) {
        state = FLOW_TCP_CLOSED;
      } else if (state != FLOW_TCP_CLOSED) {
        state = FLOW_TCP_CLOSING;
        flow->pad = side;
      }
    } else if (packet->flags & TCP_SYN) {
      if (!by_beginner && state == FLOW_TCP_OPENING) state = FLOW_TCP_ANSWERED;
    } else if (by_beginner && state == FLOW_TCP_ANSWERED) {
      state = FLOW_TCP_ESTABLISHED;
    }
  } else if (state == FLOW_UDP_ONE_WAY && !by_beginner) {
    state = FLOW_UDP;
  }
  if (state != flow->state) flow->state = state;
  if (flow->seen != now) flow->seen = now;
}

static __always_inline __u8 first_state(__u8 protocol) {
  if (protocol == IPPROTO_TCP) return FLOW_TCP_OPENING;
  return protocol == IPPROTO_UDP ? FLOW_UDP_ONE_WAY : FLOW_ICMP;
}

// Keys and values that are given to a map lie on the stack, in a map or in a packet: Linux 6.1's
// verifier takes no others, such as what a function that is verified by itself was given, which is
// copied here.

static __always_inline int same_key(const struct flow_key* a, const struct flow_key* b) {
  return a->slot == b->slot && same_address(a->remote, b->remote) &&
         a->local_port == b->local_port && a->remote_port == b->remote_port &&
         a->protocol == b->protocol;
}

// Takes an outside name whose flow is over, or, if `closed_too`, has been closed for a second, in
// which its last segments may still be on their way. The flow goes with it, or it would answer for
// the name's next one. True if the name is free now.
APART int reclaim(const struct reverse_key* given, __u64 now, __u32 closed_too) {
  // One after another: the stack is small.
  union {
    struct reverse_key name;
    struct flow_key key;
  } at;
  if (!given) return 0;
  at.name = *given;
  struct flow_key* found = bpf_map_lookup_elem(&reverse, &at.name);
  if (!found) return 1;
  // Not where it lies: that may be another's at any time.
  at.key = *found;
  struct flow* flow = bpf_map_lookup_elem(&flows, &at.key);
  struct slot* slot = get_slot(at.key.slot);
  if (flow && slot && flow->source_port == given->source_port &&
      same_address(flow->source, given->source)) {
    int is_closed = flow->state == FLOW_TCP_CLOSED && now - flow->seen >= CUBE_SECOND;
    if (is_alive(flow, slot, now) && !(closed_too && is_closed)) return 0;
    // One processor takes it.
    if (bpf_map_delete_elem(&flows, &at.key) != 0) return 0;
  }
  at.name = *given;
  bpf_map_delete_elem(&reverse, &at.name);
  return 1;
}

// Gives `flow` a source port that no other flow to the same target has. REASON_ALLOWED or _PORTS.
APART int choose_port(const struct flow_key* given, struct flow* flow, __u32 range, __u64 now) {
  struct reverse_key name;
  if (!given || !flow) return REASON_PORTS;
  struct flow_key own = *given, *key = &own;
  __u32 first = range & 0xffff, count = (range >> 16) - first + 1;
  reverse_of(flow, key->protocol, &name);
  for (__u32 i = 0; i < PORT_TRIES; i++) {
    __u32 port = first + bpf_get_prandom_u32() % (count ? count : 1);
    name.source_port = bpf_htons(port);
    if (bpf_map_update_elem(&reverse, &name, key, BPF_NOEXIST) == 0 ||
        (reclaim(&name, now, i >= PORT_TRIES_SPARING) &&
         bpf_map_update_elem(&reverse, &name, key, BPF_NOEXIST) == 0)) {
      flow->source_port = name.source_port;
      return REASON_ALLOWED;
    }
  }
  return REASON_PORTS;
}

// Enters a new flow, which has a name outside already.
static __always_inline int add_flow(const struct flow_key* key, const struct flow* flow,
                                    struct slot* slot) {
  if (bpf_map_update_elem(&flows, key, flow, BPF_ANY) != 0) {
    struct reverse_key name;
    reverse_of(flow, key->protocol, &name);
    bpf_map_delete_elem(&reverse, &name);
    return REASON_FLOWS;
  }
  __sync_fetch_and_add(&slot->flows, 1);
  struct slot_counters* count = bpf_map_lookup_elem(&counters, &key->slot);
  if (count) count->flows++;
  return REASON_ALLOWED;
}

// Whether the flow's name outside leads to it.
APART int owns_name(const struct flow_key* key, const struct flow* flow) {
  if (!key || !flow) return 0;
  struct reverse_key name;
  reverse_of(flow, key->protocol, &name);
  struct flow_key* owner = bpf_map_lookup_elem(&reverse, &name);
  return owner && same_key(owner, key);
}

static __always_inline void drop_flow(const struct flow_key* key, const struct flow* flow) {
  struct reverse_key name;
  reverse_of(flow, key->protocol, &name);
  // It may be another's by now.
  if (owns_name(key, flow)) bpf_map_delete_elem(&reverse, &name);
  bpf_map_delete_elem(&flows, key);
}

#ifdef CARRIES_FRAGMENTS
static __always_inline void fragment_name(const struct packet* packet, __u32 slot,
                                          struct fragment_key* key) {
  __builtin_memset(key, 0, sizeof(*key));
  key->slot = slot;
  key->source = packet->ip.saddr;
  key->target = packet->ip.daddr;
  key->identifier = fragment_identifier(&packet->ip);
  key->protocol = packet->ip.protocol;
}
#endif

static __always_inline void count_packet(__u32 slot, __u32 bytes, int inward) {
  struct slot_counters* count = bpf_map_lookup_elem(&counters, &slot);
  if (!count) return;
  if (inward) {
    count->packets_in++;
    count->bytes_in += bytes;
  } else {
    count->packets_out++;
    count->bytes_out += bytes;
  }
}

static __always_inline void count_denied(__u32 slot) {
  struct slot_counters* count = bpf_map_lookup_elem(&counters, &slot);
  if (count) count->denied++;
}

#endif  // CUBE_NET_BPF_FLOW_H_
