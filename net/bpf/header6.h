#ifndef CUBE_NET_BPF_HEADER6_H_
#define CUBE_NET_BPF_HEADER6_H_

// What is IPv6's own of a packet (RFC 8200, RFC 4443). Names are those of IPv4's fields, so that
// what does not care reads both.

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>

#include "net/bpf/tables.h"

struct plain_header {
  __u32 first;  // version, traffic class, flow label
  __u16 length;
  __u8 protocol;  // the next header
  __u8 ttl;       // the hop limit
  ip_address saddr, daddr;
};

#ifdef CUBE_FRAGMENTS
// With the header of a fragment (RFC 8200 section 4.5) behind it, as the only one between.
struct ip_header {
  __u32 first;
  __u16 length;
  __u8 next;  // IPPROTO_FRAGMENT
  __u8 ttl;
  ip_address saddr, daddr;
  __u8 protocol;
  __u8 reserved;
  __u16 fragment;  // offset, and whether more come
  __u32 identifier;
};
#define CARRIES_FRAGMENTS
#else
#define ip_header plain_header
#endif

#define FAMILY 6
#define PLAIN_L4 (ETH_HLEN + 40)
#define FRAGMENT_HEADER 8
#ifdef CUBE_FRAGMENTS
#define L4 (PLAIN_L4 + FRAGMENT_HEADER)
#else
#define L4 PLAIN_L4
#endif

#define FRAGMENT_OFFSET 0xfff8  // bytes
#define FRAGMENT_MORE 1
#define ICMP_PROTOCOL IPPROTO_ICMPV6

#define INSIDE6(network, host)                 \
  ((ip_address){{bpf_htonl(CUBE_INSIDE6_HIGH), \
                 bpf_htonl((__u32)CUBE_INSIDE6_LOW << 16 | (network)), 0, bpf_htonl(host)}})
#define GUEST_ADDRESS INSIDE6(0, CUBE_GUEST6)
#define GATEWAY_ADDRESS INSIDE6(0, CUBE_GATEWAY6)

#define ICMP_UNREACHABLE 1
#define ICMP_TOO_BIG 2
#define ICMP_TIME_EXCEEDED 3
#define ICMP_PARAMETER 4
#define ICMP_ECHO_REQUEST 128
#define ICMP_ECHO_REPLY 129
#define ICMP_NEIGHBOUR_SOLICITATION 135
#define ICMP_NEIGHBOUR_ADVERTISEMENT 136

// Types and codes of errors that guests are told of.
#define ERROR_PROHIBITED (ICMP_UNREACHABLE << 8 | 1)
#define ERROR_TOO_BIG (ICMP_TOO_BIG << 8)
#define ERROR_TTL (ICMP_TIME_EXCEEDED << 8)

#ifdef CUBE_FRAGMENTS
static __always_inline __u32 fragment_identifier(const struct ip_header* ip) {
  return ip->identifier;
}
#endif

static __always_inline int same_address(ip_address a, ip_address b) {
  return !((a.words[0] ^ b.words[0]) | (a.words[1] ^ b.words[1]) | (a.words[2] ^ b.words[2]) |
           (a.words[3] ^ b.words[3]));
}

static __always_inline int is_inside(ip_address a) {
  return a.words[0] == bpf_htonl(CUBE_INSIDE6_HIGH) &&
         (a.words[1] & bpf_htonl(0xffff0000)) == bpf_htonl((__u32)CUBE_INSIDE6_LOW << 16);
}

// Whether a connection may come from there: no group, no link's own, nor what is none on a wire
// (::, ::1, ::ffff:0:0/96 and the like).
static __always_inline int is_peer(ip_address a) {
  __u8 first = bpf_ntohl(a.words[0]) >> 24;
  return first != 0 && first != 0xff &&
         (a.words[0] & bpf_htonl(0xffc00000)) != bpf_htonl(0xfe800000);
}

static __always_inline int is_icmp_error(__u8 type) {
  return type >= ICMP_UNREACHABLE && type <= ICMP_PARAMETER;
}

// What every guest sends from: :: if the uplink has none.
static __always_inline ip_address world_source(const struct settings* set, __u32 number) {
  return set->snat6;
}

static __always_inline int is_no_address(ip_address a) {
  return !(a.words[0] | a.words[1] | a.words[2] | a.words[3]);
}

// The host, and the guest as the host knows it.
static __always_inline ip_address host_target(const struct settings* set) { return INSIDE6(1, 1); }
static __always_inline ip_address host_source(const struct slot* slot, __u32 number) {
  return INSIDE6(1, number + 1);
}
static __always_inline __u16 peek_port(const struct settings* set) { return set->peek_port6; }
// Guests ask for names by IPv4.
static __always_inline __u16 resolver_port(const struct settings* set) { return 0; }

#endif  // CUBE_NET_BPF_HEADER6_H_
