#ifndef CUBE_NET_NETLINK_H_
#define CUBE_NET_NETLINK_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "net/network.h"

namespace cube::net {

// A network interface.
struct Link {
  uint32_t index = 0;
  std::string name;
  std::array<uint8_t, 6> mac = {};
  uint32_t mtu = 0;
  bool up = false;
  bool ethernet = false;
};

// An address in network order, on an interface.
template <typename Address>
struct LinkAddressOf {
  uint32_t index = 0;
  Address address = {};
  uint8_t prefix = 0;
  bool lasting = false;  // of IPv6: neither deprecated nor temporary (RFC 8981)
};
using LinkAddress = LinkAddressOf<uint32_t>;
using LinkAddress6 = LinkAddressOf<bpf::address6>;

// What the fabric asks of the kernel's rtnetlink(7), in the network namespace in which it was
// opened. Requests are made one after another and waited for. On one thread.
class Netlink {
 public:
  static Result<Netlink> Open();

  Result<std::vector<Link>> Links();
  // Nothing if there is none of that name.
  Result<std::optional<Link>> Find(const std::string& name);
  // Without those that are not, or not yet, the host's.
  Result<std::vector<LinkAddress>> Addresses() { return AddressesOf<uint32_t>(); }
  Result<std::vector<LinkAddress6>> Addresses6() { return AddressesOf<bpf::address6>(); }
  // The interface by which `address` (network order) is reached; 0 if there is no route.
  Result<uint32_t> RouteTo(uint32_t address);

  // Two ends of one cable.
  Status AddVeth(const std::string& name, const std::string& peer);
  Status Remove(uint32_t index);
  // No neighbours are asked for on it (IFF_NOARP).
  Status SetUp(uint32_t index, bool arp = true);
  Status SetMtu(uint32_t index, uint32_t mtu);
  Status SetMac(uint32_t index, const std::array<uint8_t, 6>& mac);
  // An address of either family, in network order, at once: nobody is asked whether it is his. One
  // that is there already is no error.
  template <typename Address>
  Status AddAddress(uint32_t index, const Address& address, uint8_t prefix);
  template <typename Address>
  Status AddRoute(const std::type_identity_t<Address>& network, uint8_t prefix,
                  const Address& gateway);
  // Moves it to the network namespace that `descriptor` is one of (/proc/PID/ns/net).
  Status Move(uint32_t index, int descriptor);

 private:
  explicit Netlink(UniqueFd fd) : fd_(std::move(fd)) {}
  class Message;
  template <typename Each>
  Status Ask(Message* message, const char* doing, const Each& each);
  Status Do(Message* message, const char* doing);
  template <typename Address>
  Result<std::vector<LinkAddressOf<Address>>> AddressesOf();

  UniqueFd fd_;
  uint32_t sequence_ = 0;
};

}  // namespace cube::net

#endif  // CUBE_NET_NETLINK_H_
