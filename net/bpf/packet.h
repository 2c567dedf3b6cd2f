#ifndef CUBE_NET_BPF_PACKET_H_
#define CUBE_NET_BPF_PACKET_H_

// One packet, its headers copied out and checked against one another and the frame: of the family
// that is compiled for, IPv6 with CUBE_IPV6. What the families have of their own is in header4.h
// and parse4.h, rewrite4.h and answer4.h, or those with a 6.

#include <linux/pkt_cls.h>

#ifdef CUBE_IPV6
#include "net/bpf/header6.h"
#else
#include "net/bpf/header4.h"
#endif

// Of TCP's header, byte 13.
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

// Offsets within the transport header.
#define TCP_SEQ_AT 4
#define TCP_DOFF_AT 12
#define TCP_FLAGS_AT 13
#define TCP_CHECK_AT 16
#define UDP_CHECK_AT 6
#define ICMP_CHECK_AT 2

struct packet {
  struct ip_header ip;
  __u16 source_port;  // of ICMP's echo its identifier, in both
  __u16 target_port;
  __u16 checksum;                // of TCP or UDP, as it came
  __u16 edge;                    // where a first fragment ends, or a later one begins
  __u32 sequence, acknowledged;  // TCP's, network order
  __u32 payload;                 // bytes after TCP's header
  __u8 flags;                    // TCP's
  __u8 icmp_type;
  __u8 later_fragment;
  __u8 fragmented;
  __u8 is_error;  // an ICMP error, whose ports are those of the packet within, turned round
  __u8 inner_protocol;
  __u8 inner_skip;          // bytes between that packet's header and its ports
  ip_address inner_target;  // where that packet was going
};

// The first `size` bytes of the frame, where they lie; null if they are not in one piece. What is
// read is good until a helper changes the frame.
static __always_inline void* bytes_of(const struct __sk_buff* skb, __u32 size) {
  void *start = (void*)(long)skb->data, *end = (void*)(long)skb->data_end;
  return start + size <= end ? start : 0;
}

// Has the longest header that is looked at in one piece, if the frame is as long.
static __always_inline void gather(struct __sk_buff* skb) {
  __u32 size = skb->len < L4 + 20 ? skb->len : L4 + 20;
  if ((void*)(long)skb->data + size > (void*)(long)skb->data_end) bpf_skb_pull_data(skb, size);
}

// The family's own.
static __always_inline int parse_error(struct __sk_buff* skb, struct packet* packet, __u32 length);

static __always_inline int parse_icmp(struct __sk_buff* skb, struct packet* packet, __u32 length) {
  __u16 header[4];
  if (length < 8 || bpf_skb_load_bytes(skb, L4, header, sizeof(header)) < 0) {
    return REASON_MALFORMED;
  }
  packet->icmp_type = header[0] & 0xff;
  if (is_icmp_error(packet->icmp_type)) return parse_error(skb, packet, length);
  if (packet->icmp_type != ICMP_ECHO_REQUEST && packet->icmp_type != ICMP_ECHO_REPLY) {
    return REASON_PROTOCOL;
  }
  packet->source_port = packet->target_port = header[2];
  return REASON_ALLOWED;
}

static __always_inline int parse_tcp(struct __sk_buff* skb, struct packet* packet, __u32 length) {
  const __u8* header = bytes_of(skb, L4 + 20);
  if (length < 20 || !header) return REASON_MALFORMED;
  header += L4;
  __u32 size = (header[TCP_DOFF_AT] >> 4) * 4;
  if (size < 20 || size > length) return REASON_MALFORMED;
  packet->source_port = *(__u16*)header;
  packet->target_port = *(__u16*)(header + 2);
  packet->sequence = *(__u32*)(header + TCP_SEQ_AT);
  packet->acknowledged = *(__u32*)(header + 8);
  packet->checksum = *(__u16*)(header + TCP_CHECK_AT);
  packet->flags = header[TCP_FLAGS_AT];
  packet->payload = length - size;
  __u8 kind = packet->flags & (TCP_SYN | TCP_FIN | TCP_RST);
  // One at most.
  if (kind & (kind - 1)) return REASON_MALFORMED;
  return REASON_ALLOWED;
}

static __always_inline int parse_udp(struct __sk_buff* skb, struct packet* packet, __u32 length) {
  const __u8* frame = bytes_of(skb, L4 + 8);
  if (length < 8 || !frame) return REASON_MALFORMED;
  const __u16* header = (const __u16*)(frame + L4);
  // A first fragment has less than its datagram.
  __u32 size = bpf_ntohs(header[2]);
  if (size < 8 || (size > length && !packet->fragmented)) return REASON_MALFORMED;
  packet->source_port = header[0];
  packet->target_port = header[1];
  packet->checksum = header[3];
  return REASON_ALLOWED;
}

static __always_inline void count_reason(__u32 reason) {
  __u64* count = bpf_map_lookup_elem(&reasons, &reason);
  if (count) ++*count;
}

// Tells who traces. `packet` may be null. `what`: the reason, and from bit 8 on whether it goes
// inward.
APART int trace_packet(const struct packet* packet, __u32 slot, __u32 bytes, __u32 what) {
  __u32 reason = what & 0xff, inward = what >> 8;
  struct trace_event* event = bpf_ringbuf_reserve(&trace, sizeof(*event), 0);
  if (!event) return 0;
  __builtin_memset(event, 0, sizeof(*event));
  event->at = bpf_ktime_get_coarse_ns();
  event->slot = slot;
  event->bytes = bytes;
  event->reason = reason;
  event->inward = inward;
  if (packet) {
    *(ip_address*)&event->remote = inward ? packet->ip.saddr : packet->ip.daddr;
    event->family = FAMILY;
    event->local_port = inward ? packet->target_port : packet->source_port;
    event->remote_port = inward ? packet->source_port : packet->target_port;
    event->protocol = packet->ip.protocol;
  }
  bpf_ringbuf_submit(event, 0);
  return 0;
}

static __always_inline void note(const struct settings* set, const struct packet* packet,
                                 __u32 slot, __u32 bytes, int inward, __u32 reason) {
  count_reason(reason);
  if (set->trace & (1u << (reason & 31))) trace_packet(packet, slot, bytes, reason | inward << 8);
}

#endif  // CUBE_NET_BPF_PACKET_H_
