// The network fabric's programs for fragments of IPv6, to which those of fabric6.bpf.c hand over
// once they have seen that header.
#define CUBE_IPV6
#define CUBE_FRAGMENTS

#include "net/bpf/family6.h"

char LICENSE[] SEC("license") = "GPL";

SEC("tc")
int from_sandbox6_fragment(struct __sk_buff* skb) { return sandbox6(skb); }

SEC("tc")
int from_world6_fragment(struct __sk_buff* skb) { return world6(skb); }

SEC("tc")
int from_host6_fragment(struct __sk_buff* skb) { return host6(skb); }
