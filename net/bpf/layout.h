// What has addresses in it. maps.h includes it for each family, once its `ip_address` is known: it
// stands by itself nowhere.

struct flow_key {
  __u32 slot;
  ip_address remote;
  __u16 local_port;  // for an echo its identifier
  __u16 remote_port;
  __u8 protocol;
  __u8 pad[3];
};

struct flow {
  __u64 seen;         // coarse CLOCK_MONOTONIC nanoseconds
  ip_address source;  // what the guest's address becomes
  ip_address target;  // what the remote address becomes: itself, or the host's
  __u16 source_port;
  __u16 target_port;
  __u8 state;
  __u8 kind;
  __u8 outside;  // it was begun by the other side
  __u8 pad;
  __u32 generation;  // of the policy that has let it through
  __u32 epoch;
};

// A flow as it is seen outside, from there.
struct reverse_key {
  ip_address target;
  ip_address source;
  __u16 target_port;
  __u16 source_port;
  __u8 protocol;
  __u8 pad[3];
};

// Of one datagram's fragments, as its first one came.
struct fragment_key {
  __u32 slot;  // 0 from outside
  ip_address source;
  ip_address target;
  __u32 identifier;  // of IPv4 16 bits
  __u8 protocol;
  __u8 pad[3];
};

// How those after the first one go on.
struct fragment {
  __u64 until;  // coarse CLOCK_MONOTONIC nanoseconds
  ip_address source;
  ip_address target;
  __u32 slot;
  __u32 generation;  // outward of the policy, inward of the sandbox (its epoch)
  __u32 identifier;
  __u16 end;  // of the first one, bytes: nothing may lie over it
  __u8 kind;
  __u8 pad;
};

// Longest prefix first by generation, then by address.
struct rule_key {
  __u32 prefix;  // 32 + that of the address
  __u32 generation;
  ip_address address;
};

struct fixed_key {
  __u32 prefix;
  ip_address address;
};

struct opened_key {
  __u32 slot;
  ip_address address;
};
