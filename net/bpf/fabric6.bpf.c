// The network fabric's programs for IPv6, to which those of fabric.bpf.c hand over once they have
// seen the Ethernet header (docs/network.md).
#define CUBE_IPV6

#include "net/bpf/family6.h"

char LICENSE[] SEC("license") = "GPL";

SEC("tc")
int from_sandbox6(struct __sk_buff* skb) { return sandbox6(skb); }

SEC("tc")
int from_world6(struct __sk_buff* skb) { return world6(skb); }

SEC("tc")
int from_host6(struct __sk_buff* skb) { return host6(skb); }
