#ifndef CUBE_NET_BPF_MAPS_H_
#define CUBE_NET_BPF_MAPS_H_

// What the programs in the kernel and the node outside share: layouts of maps, limits, reasons.
// Addresses and ports are in network order unless a name says otherwise. A change here needs a new
// CUBE_LAYOUT: maps of another layout are not taken over.

#include <linux/types.h>

#ifdef __cplusplus
namespace cube::net::bpf {
#endif

#define CUBE_LAYOUT 4

#define CUBE_MAX_SLOTS 4096
#define CUBE_NEAR_TAPS 8192  // a power of two
#define CUBE_MAX_FLOWS 131072
#define CUBE_MAX_RULES 1048576
#define CUBE_MAX_FIXED 4096
#define CUBE_MAX_PORTS 8192
#define CUBE_MAX_OPENED 65536
#define CUBE_MAX_FRAGMENTS 8192
#define CUBE_MAX_RANGES 8
#define CUBE_MAX_SNAT 4
#define CUBE_ID_SIZE 40
#define CUBE_TRACE_BYTES (1 << 18)

// One for all guests: 169.254.0.21/30, behind 169.254.0.22; fdcb:6375:6265::15/126, behind ::16. By
// fdcb:6375:6265:1::/64 the host knows them: its own address is ::1, that of slot N ::N+1.
#define CUBE_INSIDE6_HIGH 0xfdcb6375
#define CUBE_INSIDE6_LOW 0x6265
#define CUBE_GUEST6 0x15
#define CUBE_GATEWAY6 0x16
#define CUBE_GUEST_MAC \
  { 0x02, 0xcb, 0x00, 0x00, 0x00, 0x15 }
#define CUBE_GATEWAY_MAC \
  { 0x02, 0xcb, 0x00, 0x00, 0x00, 0x16 }

// How long a fragment's successors are waited for, and how long a flow may be silent, by its state.
#define CUBE_SECOND 1000000000ull
#define CUBE_FRAGMENT_NS (30 * CUBE_SECOND)

enum flow_state {
  FLOW_UDP_ONE_WAY,      // nothing has come back yet
  FLOW_UDP,              // datagrams went both ways
  FLOW_ICMP,             // an echo
  FLOW_TCP_OPENING,      // SYN, not answered
  FLOW_TCP_ANSWERED,     // SYN in both directions
  FLOW_TCP_ESTABLISHED,  // and an ACK of it
  FLOW_TCP_CLOSING,      // FIN in one direction
  FLOW_TCP_CLOSED,       // FIN in both, or RST
  FLOW_STATES,
};

static inline __u64 flow_timeout(__u8 state) {
  switch (state) {
    case FLOW_UDP_ONE_WAY:
      return 30 * CUBE_SECOND;
    case FLOW_UDP:
      return 180 * CUBE_SECOND;
    case FLOW_ICMP:
      return 30 * CUBE_SECOND;
    case FLOW_TCP_OPENING:
      return 60 * CUBE_SECOND;
    case FLOW_TCP_ANSWERED:
      return 60 * CUBE_SECOND;
    case FLOW_TCP_ESTABLISHED:
      return 7440 * CUBE_SECOND;  // RFC 5382, REQ-5
    case FLOW_TCP_CLOSING:
      return 240 * CUBE_SECOND;
    default:
      return 10 * CUBE_SECOND;
  }
}

enum flow_kind {
  FLOW_OUT,       // begun by the guest, to the world
  FLOW_PEEKED,    // begun by the guest, through the proxy that looks at the name
  FLOW_RESOLVER,  // begun by the guest, to the node's resolver
  FLOW_IN,        // begun by the world, by a port mapping
  FLOW_HOST,      // begun by the host
};

// Why a packet was let through or not.
enum reason {
  REASON_ALLOWED,
  REASON_ARP,        // answered
  REASON_NO_SLOT,    // of no sandbox
  REASON_NO_POLICY,  // of a sandbox to which nothing is open yet
  REASON_MALFORMED,  // headers that contradict themselves or the frame
  REASON_VLAN,       // a tag
  REASON_ETHERTYPE,  // neither IPv4 nor ARP nor IPv6
  REASON_IPV6,       // IPv6 where the node carries none
  REASON_SOURCE,     // not the guest's own address
  REASON_OPTIONS,    // IP options
  REASON_PROTOCOL,   // neither TCP, UDP nor an ICMP that is carried
  REASON_FRAGMENT,   // a fragment without its first one, or over a header
  REASON_FIXED,      // an address that no policy opens
  REASON_POLICY,     // the sandbox's policy
  REASON_HOST,       // the host itself
  REASON_NO_FLOW,    // TCP in the middle of a connection that is not known
  REASON_FLOWS,      // the sandbox has too many flows
  REASON_PORTS,      // no port is left for it
  REASON_RATE,       // over the limit
  REASON_TTL,        // has come to its end
  REASON_TOO_BIG,    // for the uplink
  REASON_SPOOFED,    // from outside, with an address that exists only inside
  REASONS,
};

// An address of IPv6 in network order.
struct address6 {
  __u32 words[4];
#ifdef __cplusplus
  bool operator==(const address6&) const = default;
#endif
};

enum slot_flags {
  SLOT_INTERNET = 1,  // what no rule speaks of is open
  SLOT_DOMAINS = 2,   // names are, by the resolver and the proxy
  SLOT_IPV6 = 4,      // its rules of IPv6 are in place as well: else none of it is carried
};

// A TAP and the sandbox behind it. The node writes it through a mapping: `policy` last and in one
// piece, so that a packet is judged by all of the old policy or all of the new one.
struct slot {
  __u64 policy;  // generation of its rules, flags << 32; 0: nothing gets through
  __u32 ifindex;
  __u32 host_address;  // by which the host knows it
  __u32 epoch;         // of its present sandbox: flows of another are dead
  __u32 max_flows;
  __u64 bytes_per_second;  // from the guest; 0: as many as may be
  __u64 packets_per_second;
  __u32 flows;  // counted up by the programs, set right by the reaper
  __u32 pad;
  char id[CUBE_ID_SIZE];  // of the sandbox; empty: the slot is free
  __u8 rest[40];          // so that what a packet needs of it is within one line of the cache
};

struct slot_counters {
  __u64 packets_out, bytes_out, packets_in, bytes_in, denied, flows;
};

// An entry of `near_taps`: who a TAP belongs to, where its index modulo the table's size says.
static inline __u64 near_tap(__u32 ifindex, __u32 slot) { return (__u64)ifindex << 32 | slot; }

// What a sandbox has left of its limits: time at their pace, at most a second; below zero it waits.
struct meter_state {
  __u64 at;  // when it was filled last, CLOCK_MONOTONIC nanoseconds
  __s64 bytes;
  __s64 packets;
};

struct port_range {
  __u16 first, last;  // in the host's order
  __u8 protocol;      // 0: every one
  __u8 deny;          // else allow
};

// All that the rules for any network around this one say: ranges that allow before those that deny.
struct rule {
  __u32 count;
  struct port_range ranges[CUBE_MAX_RANGES];
};

#ifdef __cplusplus
inline namespace v4 {
using ip_address = __u32;
#include "net/bpf/layout.h"
}  // namespace v4
namespace v6 {
using ip_address = address6;
#include "net/bpf/layout.h"
}  // namespace v6
#else
#ifdef CUBE_IPV6
typedef struct address6 ip_address;
#else
typedef __u32 ip_address;
#endif
#include "net/bpf/layout.h"
#endif

#define FIXED_DENIED 1
#define FIXED_EXCEPTED 2

struct opened {
  __u64 until;  // CLOCK_MONOTONIC nanoseconds
  __u32 epoch;
  __u32 pad;
};

struct port_key {
  __u16 port;  // on the host
  __u8 protocol;
  __u8 pad;
};
struct port_target {
  __u32 slot;
  __u32 epoch;
  __u16 port;
  __u16 pad;
};

// What holds for all sandboxes.
struct settings {
  __u32 uplink;  // ifindex
  __u32 mtu;     // of what goes out there; 0: it is to be looked up
  __u32 host;    // of the host-side device
  __u32 host_address;
  __u32 host_network;  // of the addresses by which the host knows sandboxes
  __u32 host_mask;
  __u32 snat_count;
  __u32 snat[CUBE_MAX_SNAT];
  __u16 first_port, last_port;  // of the pool, in the host's order
  __u16 resolver_port;          // in network order, 0: none
  __u16 peek_port;
  __u32 trace;  // a flag for each reason that is traced
  __u8 host_mac[6];
  __u16 peek_port6;
  struct address6 snat6;  // none: IPv6 is refused
};

// Programs for IPv6, to which those for IPv4 hand over, and those for its fragments, to which these
// do.
enum family_program {
  FAMILY_SANDBOX,
  FAMILY_WORLD,
  FAMILY_HOST,
  FAMILY_SANDBOX_FRAGMENT,
  FAMILY_WORLD_FRAGMENT,
  FAMILY_HOST_FRAGMENT,
  FAMILY_PROGRAMS,
};

struct trace_event {
  __u64 at;
  __u32 slot;
  __u32 bytes;
  struct address6 remote;  // of IPv4 the first word
  __u16 local_port, remote_port;
  __u8 protocol;
  __u8 reason;
  __u8 inward;
  __u8 family;  // 4, 6, or 0 if none was read
};

#ifdef __cplusplus
}  // namespace cube::net::bpf
#endif

#endif  // CUBE_NET_BPF_MAPS_H_
