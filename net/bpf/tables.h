#ifndef CUBE_NET_BPF_TABLES_H_
#define CUBE_NET_BPF_TABLES_H_

// The maps of the programs. Those with state are pinned by the loader and outlive it. The programs
// for IPv6 (CUBE_IPV6) have flows, reverse, rules, fixed, opened and fragments of their own, and
// share the rest.

#include <linux/bpf.h>
// After it.
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "net/bpf/maps.h"

#define TABLE(type_, key_, value_, entries_, flags_, name_) \
  struct {                                                  \
    __uint(type, type_);                                    \
    __uint(max_entries, entries_);                          \
    __uint(map_flags, flags_);                              \
    __type(key, key_);                                      \
    __type(value, value_);                                  \
  } name_ SEC(".maps")

TABLE(BPF_MAP_TYPE_ARRAY, __u32, struct settings, 1, 0, settings);
TABLE(BPF_MAP_TYPE_ARRAY, __u32, struct slot, CUBE_MAX_SLOTS, BPF_F_MMAPABLE, slots);
TABLE(BPF_MAP_TYPE_HASH, __u32, __u32, CUBE_MAX_SLOTS, 0, taps);  // ifindex: slot
// Most of the same, found without a hash.
TABLE(BPF_MAP_TYPE_ARRAY, __u32, __u64, CUBE_NEAR_TAPS, 0, near_taps);
TABLE(BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct slot_counters, CUBE_MAX_SLOTS, 0, counters);
TABLE(BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, REASONS, 0, reasons);
TABLE(BPF_MAP_TYPE_LRU_HASH, struct flow_key, struct flow, CUBE_MAX_FLOWS, 0, flows);
TABLE(BPF_MAP_TYPE_LRU_HASH, struct reverse_key, struct flow_key, CUBE_MAX_FLOWS, 0, reverse);
TABLE(BPF_MAP_TYPE_LPM_TRIE, struct rule_key, struct rule, CUBE_MAX_RULES, BPF_F_NO_PREALLOC,
      rules);
TABLE(BPF_MAP_TYPE_LPM_TRIE, struct fixed_key, __u32, CUBE_MAX_FIXED, BPF_F_NO_PREALLOC, fixed);
TABLE(BPF_MAP_TYPE_LRU_HASH, struct opened_key, struct opened, CUBE_MAX_OPENED, 0, opened);
TABLE(BPF_MAP_TYPE_HASH, struct port_key, struct port_target, CUBE_MAX_PORTS, 0, ports);
TABLE(BPF_MAP_TYPE_LRU_HASH, struct fragment_key, struct fragment, CUBE_MAX_FRAGMENTS, 0,
      fragments);
// A program that is not there is one that refuses.
TABLE(BPF_MAP_TYPE_PROG_ARRAY, __u32, __u32, FAMILY_PROGRAMS, 0, families);

struct meter {
  struct bpf_spin_lock lock;
  struct meter_state state;
};
TABLE(BPF_MAP_TYPE_ARRAY, __u32, struct meter, CUBE_MAX_SLOTS, 0, meters);

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, CUBE_TRACE_BYTES);
} trace SEC(".maps");

// A function that is verified by itself, once, whoever calls it: what it is given may be null for
// all the verifier knows.
#define APART __attribute__((noinline))

static __always_inline struct settings* get_settings(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline struct slot* get_slot(__u32 number) {
  return bpf_map_lookup_elem(&slots, &number);
}

// The slot behind a TAP; null if there is none.
static __always_inline struct slot* slot_of(__u32 ifindex, __u32* number) {
  __u32 place = ifindex & (CUBE_NEAR_TAPS - 1);
  __u64* near = bpf_map_lookup_elem(&near_taps, &place);
  __u64 entry = near ? *(volatile __u64*)near : 0;
  if (entry >> 32 == ifindex) {
    *number = entry;
  } else {
    __u32* found = bpf_map_lookup_elem(&taps, &ifindex);
    if (!found) return 0;
    *number = *found;
  }
  return get_slot(*number);
}

#endif  // CUBE_NET_BPF_TABLES_H_
