#ifndef CUBE_NET_NETLINK_H_
#define CUBE_NET_NETLINK_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
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

// An address of IPv4 in network order, on an interface.
struct LinkAddress {
  uint32_t index = 0;
  uint32_t address = 0;
  uint8_t prefix = 0;
};

// One of IPv6, without those that are not, or not yet, the host's.
struct LinkAddress6 {
  uint32_t index = 0;
  bpf::address6 address = {};
  uint8_t prefix = 0;
  bool lasting = false;  // neither deprecated nor temporary (RFC 8981)
};

// What the fabric asks of the kernel's rtnetlink(7), in the network namespace in which it was
// opened. Requests are made one after another and waited for. On one thread.
class Netlink {
 public:
  static Result<Netlink> Open();

  Result<std::vector<Link>> Links();
  // Nothing if there is none of that name.
  Result<std::optional<Link>> Find(const std::string& name);
  Result<std::vector<LinkAddress>> Addresses();
  Result<std::vector<LinkAddress6>> Addresses6();
  // The interface by which `address` (network order) is reached; 0 if there is no route.
  Result<uint32_t> RouteTo(uint32_t address);

  // Two ends of one cable.
  Status AddVeth(const std::string& name, const std::string& peer);
  Status Remove(uint32_t index);
  // No neighbours are asked for on it (IFF_NOARP).
  Status SetUp(uint32_t index, bool arp = true);
  Status SetMtu(uint32_t index, uint32_t mtu);
  Status SetMac(uint32_t index, const std::array<uint8_t, 6>& mac);
  // An address that is there already is no error.
  Status AddAddress(uint32_t index, uint32_t address, uint8_t prefix);
  Status AddRoute(uint32_t network, uint8_t prefix, uint32_t gateway);
  // At once: nobody is asked whether it is his.
  Status AddAddress6(uint32_t index, const bpf::address6& address, uint8_t prefix);
  Status AddRoute6(const bpf::address6& network, uint8_t prefix, const bpf::address6& gateway);
  // Moves it to the network namespace that `descriptor` is one of (/proc/PID/ns/net).
  Status Move(uint32_t index, int descriptor);

 private:
  explicit Netlink(UniqueFd fd) : fd_(std::move(fd)) {}
  class Message;
  template <typename Each>
  Status Ask(Message* message, const char* doing, const Each& each);
  Status Do(Message* message, const char* doing);

  UniqueFd fd_;
  uint32_t sequence_ = 0;
};

}  // namespace cube::net

#endif  // CUBE_NET_NETLINK_H_
