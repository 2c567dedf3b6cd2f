#ifndef CUBE_NET_BPF_POLICY_H_
#define CUBE_NET_BPF_POLICY_H_

// What a sandbox may reach.

#include "net/bpf/packet.h"

// A verdict: REASON_ALLOWED, and how, or why not.
struct verdict {
  __u32 reason;
  __u32 kind;  // enum flow_kind
};

static __always_inline int in_range(const struct port_range* range, __u8 protocol, __u16 port) {
  if (range->protocol != 0 && range->protocol != protocol) return 0;
  return port >= range->first && port <= range->last;
}

// Allow beats deny beats the default. `fixed` comes before all of them.
APART int judge(const struct flow_key* key, const struct slot* slot, __u64 policy, __u64 now,
                struct verdict* verdict) {
  // One after another: the stack is small.
  union {
    struct fixed_key fixed;
    struct rule_key rule;
    struct opened_key opened;
  } wanted;
  if (!key || !slot || !verdict) return 0;
  verdict->kind = FLOW_OUT;
  verdict->reason = REASON_FIXED;
  __u32 flags = policy >> 32;
  wanted.fixed = (struct fixed_key){8 * sizeof(ip_address), key->remote};
  __u32* action = bpf_map_lookup_elem(&fixed, &wanted);
  if (action && *action != FIXED_EXCEPTED) return 0;
  verdict->reason = flags & SLOT_INTERNET ? REASON_ALLOWED : REASON_POLICY;
  wanted.rule = (struct rule_key){32 + 8 * sizeof(ip_address), (__u32)policy, key->remote};
  struct rule* rule = bpf_map_lookup_elem(&rules, &wanted);
  if (rule) {
    __u16 port = bpf_ntohs(key->remote_port);
    __u32 count = rule->count;
    for (__u32 i = 0; i < CUBE_MAX_RANGES; i++) {
      if (i >= count) break;
      if (!in_range(&rule->ranges[i], key->protocol, port)) continue;
      verdict->reason = rule->ranges[i].deny ? REASON_POLICY : REASON_ALLOWED;
      break;
    }
  }
  if (verdict->reason == REASON_ALLOWED || !(flags & SLOT_DOMAINS)) return 0;
  if (key->protocol != IPPROTO_TCP) return 0;
  if (key->remote_port != bpf_htons(80) && key->remote_port != bpf_htons(443)) return 0;
  wanted.opened = (struct opened_key){key->slot, key->remote};
  struct opened* found = bpf_map_lookup_elem(&opened, &wanted);
  if (!found || found->epoch != slot->epoch || now > found->until) return 0;
  verdict->reason = REASON_ALLOWED;
  verdict->kind = FLOW_PEEKED;
  return 0;
}

// Takes `cost` from `credit`, both in nanoseconds at the limit's pace. What is longer than there is
// credit for passes, and is paid for by what follows.
static __always_inline void refill(__s64* credit, __u64 passed) {
  *credit += passed;
  if (*credit > (__s64)CUBE_SECOND) *credit = CUBE_SECOND;
}

// Whether `bytes` more are within the sandbox's limits. A second's worth may come at once.
static __always_inline int within_rate(__u32 number, const struct slot* slot, __u32 bytes) {
  __u64 byte_rate = slot->bytes_per_second, packet_rate = slot->packets_per_second;
  if (!byte_rate && !packet_rate) return 1;
  struct meter* meter = bpf_map_lookup_elem(&meters, &number);
  if (!meter) return 0;
  __u64 byte_cost = byte_rate ? bytes * CUBE_SECOND / byte_rate : 0;
  __u64 packet_cost = packet_rate ? CUBE_SECOND / packet_rate : 0;
  __u64 now = bpf_ktime_get_ns();
  bpf_spin_lock(&meter->lock);
  __u64 passed = now - meter->state.at;
  if (passed > 64 * CUBE_SECOND) passed = 64 * CUBE_SECOND;
  meter->state.at = now;
  refill(&meter->state.bytes, passed);
  refill(&meter->state.packets, passed);
  int within =
      (!byte_rate || meter->state.bytes >= 0) && (!packet_rate || meter->state.packets >= 0);
  if (within) {
    meter->state.bytes -= byte_cost;
    meter->state.packets -= packet_cost;
  }
  bpf_spin_unlock(&meter->lock);
  return within;
}

#endif  // CUBE_NET_BPF_POLICY_H_
