#ifndef CUBE_NET_NETWORK_H_
#define CUBE_NET_NETWORK_H_

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/bpf/maps.h"

namespace cube::net {

__extension__ typedef unsigned __int128 Uint128;

// A network: an address in the host's order, without bits beyond the prefix.
template <typename Address>
struct NetworkOf {
  static constexpr uint8_t kBits = sizeof(Address) * 8;

  Address address = 0;
  uint8_t prefix = kBits;

  Address mask() const {
    return prefix == 0 ? Address{0} : static_cast<Address>(~Address{0} << (kBits - prefix));
  }
  bool Contains(const NetworkOf& other) const {
    return other.prefix >= prefix && (other.address & mask()) == address;
  }
  auto operator<=>(const NetworkOf&) const = default;
};
using Network = NetworkOf<uint32_t>;  // of IPv4
using Network6 = NetworkOf<Uint128>;

// "A.B.C.D" or "A.B.C.D/PREFIX", nothing else: no leading zeros, no bits beyond the prefix.
Result<Network> ParseNetwork(std::string_view text);
// An address of IPv6 as inet_pton(3) takes it, with "/PREFIX" or without; no zones, no bits beyond.
Result<Network6> ParseNetwork6(std::string_view text);
// Whether a text that is a network or a rule means IPv6.
bool LooksLikeIpv6(std::string_view text);
std::string NetworkText(const Network& network);
std::string NetworkText(const Network6& network);

// Addresses as the kernel's maps have them, in network order, and back.
uint32_t ToWire(uint32_t address);
bpf::address6 ToWire(Uint128 address);
uint32_t FromWire(uint32_t address);
Uint128 FromWire(const bpf::address6& address);
std::string AddressText(uint32_t address);
std::string AddressText(const bpf::address6& address);

// The maps' keys of a family.
template <typename N>
struct KeysOf;
template <>
struct KeysOf<Network> {
  using Rule = bpf::v4::rule_key;
  using Fixed = bpf::v4::fixed_key;
};
template <>
struct KeysOf<Network6> {
  using Rule = bpf::v6::rule_key;
  using Fixed = bpf::v6::fixed_key;
};

// What guests and the host have inside, whatever the node (net/bpf/maps.h).
constexpr Uint128 InsideAddress6(uint32_t network, uint32_t host) {
  uint64_t low = uint64_t{CUBE_INSIDE6_LOW} << 16 | network;
  return Uint128{uint64_t{CUBE_INSIDE6_HIGH} << 32 | low} << 64 | host;
}
inline constexpr Network6 kInside6 = {InsideAddress6(0, 0), 48};
inline constexpr Uint128 kHostAddress6 = InsideAddress6(1, 1);

// A decimal number without leading zeros; more than `most` if it is none.
uint32_t PlainNumber(std::string_view text, uint32_t most);
// What of a hostile text an error shows.
std::string ShownText(std::string_view text);

}  // namespace cube::net

#endif  // CUBE_NET_NETWORK_H_
