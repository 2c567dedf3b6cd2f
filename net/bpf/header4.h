#ifndef CUBE_NET_BPF_HEADER4_H_
#define CUBE_NET_BPF_HEADER4_H_

// What is IPv4's own of a packet.

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>

#include "net/bpf/tables.h"

#define ip_header iphdr
#define plain_header iphdr
#define CARRIES_FRAGMENTS
#define FAMILY 4
#define L4 (ETH_HLEN + 20)
#define ICMP_PROTOCOL IPPROTO_ICMP

#define GUEST_ADDRESS bpf_htonl(0xa9fe0015)    // 169.254.0.21
#define GATEWAY_ADDRESS bpf_htonl(0xa9fe0016)  // 169.254.0.22

#define IP_OFFSET 0x1fff
#define IP_MORE 0x2000
#define IP_DONT 0x4000

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12

// Types and codes of errors that guests are told of.
#define ERROR_PROHIBITED (ICMP_UNREACHABLE << 8 | 13)
#define ERROR_TOO_BIG (ICMP_UNREACHABLE << 8 | 4)
#define ERROR_TTL (ICMP_TIME_EXCEEDED << 8)

static __always_inline int same_address(__u32 a, __u32 b) { return a == b; }

static __always_inline __u32 fragment_identifier(const struct iphdr* ip) { return ip->id; }

static __always_inline int is_icmp_error(__u8 type) {
  return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER;
}

// What the guest of `number` sends from: 0 if the uplink has none.
static __always_inline ip_address world_source(const struct settings* set, __u32 number) {
  __u32 which = number % (set->snat_count ? set->snat_count : 1);
  return set->snat[which & (CUBE_MAX_SNAT - 1)];
}

// Whether what comes from there may begin a flow: 0/8, 127/8, 169.254/16 and 224/3 are nobody's.
static __always_inline int is_peer(ip_address a) {
  __u32 address = bpf_ntohl(a);
  __u8 first = address >> 24;
  return first != 0 && first != 127 && first < 224 && address >> 16 != 0xa9fe;
}

static __always_inline int is_no_address(__u32 a) { return !a; }

// The host, and the guest as the host knows it.
static __always_inline ip_address host_target(const struct settings* set) {
  return set->host_address;
}
static __always_inline ip_address host_source(const struct slot* slot, __u32 number) {
  return slot->host_address;
}
static __always_inline __u16 peek_port(const struct settings* set) { return set->peek_port; }
static __always_inline __u16 resolver_port(const struct settings* set) {
  return set->resolver_port;
}

#endif  // CUBE_NET_BPF_HEADER4_H_
