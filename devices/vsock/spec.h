#ifndef CUBE_DEVICES_VSOCK_SPEC_H_
#define CUBE_DEVICES_VSOCK_SPEC_H_

#include <cstdint>

// Wire layout of the socket device (virtio 1.2 section 5.10); all fields little-endian.
namespace cube::devices::vsock {

inline constexpr uint32_t kRxQueue = 0;
inline constexpr uint32_t kTxQueue = 1;
inline constexpr uint32_t kEventQueue = 2;

// 5.10.4.
struct Config {
  uint64_t guest_cid;
};

// Context ids. 0, 1 and 2^32 - 1 are reserved; the upper half of the 64 bits is zero.
inline constexpr uint64_t kHostCid = 2;
inline constexpr uint64_t kFirstGuestCid = 3;
inline constexpr uint64_t kLastGuestCid = 0xfffffffe;

// What precedes the payload of every packet (5.10.6).
struct [[gnu::packed]] Header {
  uint64_t src_cid;
  uint64_t dst_cid;
  uint32_t src_port;
  uint32_t dst_port;
  uint32_t len;
  uint16_t type;
  uint16_t op;
  uint32_t flags;
  uint32_t buf_alloc;
  uint32_t fwd_cnt;
};
static_assert(sizeof(Header) == 44);

inline constexpr uint16_t kTypeStream = 1;

enum Operation : uint16_t {
  kOpInvalid = 0,
  kOpRequest = 1,
  kOpResponse = 2,
  kOpReset = 3,
  kOpShutdown = 4,
  kOpData = 5,
  kOpCreditUpdate = 6,
  kOpCreditRequest = 7,
};

// Flags of kOpShutdown (5.10.6.5): what the sender will not do any more.
inline constexpr uint32_t kShutdownReceive = 1;
inline constexpr uint32_t kShutdownSend = 2;
inline constexpr uint32_t kShutdownBoth = kShutdownReceive | kShutdownSend;

// 5.10.6.7.
struct Event {
  uint32_t id;
};
inline constexpr uint32_t kEventTransportReset = 0;

}  // namespace cube::devices::vsock

#endif  // CUBE_DEVICES_VSOCK_SPEC_H_
