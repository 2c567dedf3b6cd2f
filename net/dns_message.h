#ifndef CUBE_NET_DNS_MESSAGE_H_
#define CUBE_NET_DNS_MESSAGE_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "net/bpf/maps.h"

namespace cube::net {

// What of DNS (RFC 1035) a resolver for others has to understand. Messages are hostile: every
// length is checked, and names have no more jumps than labels.

inline constexpr size_t kMaxDnsMessage = 65535;
inline constexpr uint16_t kDnsTypeA = 1;
inline constexpr uint16_t kDnsTypeAaaa = 28;

enum class DnsCode : uint8_t { kNoError = 0, kFormat = 1, kServer = 2, kRefused = 5 };

struct DnsQuestion {
  uint16_t id = 0;
  bool recursion_desired = false;
  std::string name;  // lower-cased, without a dot at its end; empty for the root
  uint16_t type = 0;
  std::vector<uint8_t> bytes;  // as it stands in the message, for an answer to repeat
};

// `Address`: uint32_t or bpf::address6, in network order.
template <typename Address>
struct DnsAddressOf {
  Address address = {};
  uint32_t ttl = 0;  // seconds

  bool operator==(const DnsAddressOf&) const = default;
};
using DnsAddress = DnsAddressOf<uint32_t>;
using DnsAddress6 = DnsAddressOf<bpf::address6>;

struct DnsAnswer {
  DnsCode code = DnsCode::kNoError;
  uint8_t raw_code = 0;
  bool truncated = false;
  // Of the name that was asked for, or of what it is an alias of.
  std::vector<DnsAddress> addresses;
  std::vector<DnsAddress6> addresses6;
};

// A query with one question of class IN.
Result<DnsQuestion> ParseDnsQuery(std::span<const uint8_t> message);
// An answer to `question`, which was sent with `id`.
Result<DnsAnswer> ParseDnsAnswer(std::span<const uint8_t> message, const DnsQuestion& question,
                                 uint16_t id);

// The query that asks `question` under another id.
std::vector<uint8_t> MakeDnsQuery(const DnsQuestion& question, uint16_t id);
// An answer; with kNoError and no addresses it says that there are none of that type.
std::vector<uint8_t> MakeDnsAnswer(const DnsQuestion& question, DnsCode code,
                                   const std::vector<DnsAddress>& addresses = {},
                                   const std::vector<DnsAddress6>& addresses6 = {});
// The answer of a name that does not exist, and others without addresses, by its number.
std::vector<uint8_t> MakeDnsError(const DnsQuestion& question, uint8_t code);

}  // namespace cube::net

#endif  // CUBE_NET_DNS_MESSAGE_H_
