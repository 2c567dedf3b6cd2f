#ifndef CUBE_NET_TESTING_FABRIC_FIXTURE_H_
#define CUBE_NET_TESTING_FABRIC_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>
#include <optional>
#include <string>

#include "net/fabric.h"
#include "net/testing/network.h"

namespace cube::net::testing {

// A host with a fabric, 203.0.113.1 on the uplink "up", and an internet behind 203.0.113.2 that has
// 192.0.2.80 and 198.51.100.7; all in network namespaces of their own. By IPv6 the host is
// 2001:db8:1::1, and the internet 2001:db8:1::2, 2001:db8:80::80 and 2001:db8:66::7.
class FabricFixture : public ::testing::Test {
 protected:
  static constexpr const char* kWorld = "192.0.2.80";
  static constexpr const char* kOther = "198.51.100.7";
  static constexpr const char* kHost = "203.0.113.1";
  static constexpr const char* kWorld6 = "2001:db8:80::80";
  static constexpr const char* kOther6 = "2001:db8:66::7";
  static constexpr const char* kHost6 = "2001:db8:1::1";

  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;
  void TearDown() override;

  FabricOptions Options() const;
  // Takes a TAP, for the sandbox `id` under that policy.
  UniqueFd Sandbox(const std::string& id, const Policy& policy = Policy());
  std::unique_ptr<GuestStack> Guest(const std::string& id, const Policy& policy = Policy());
  static Policy Lists(const std::vector<std::string>& allow, const std::vector<std::string>& deny,
                      bool internet);
  // Sends "ping" and hears it; 0 or errno.
  static int Echo(const UniqueFd& socket);
  // Sends datagrams of up to 60,000 bytes to an echo server, and hears all of them as they were.
  static void ExpectDatagrams(const UniqueFd& socket);
  // That a port of the host's at `host` leads to one of a guest's at `inner` while it is mapped, to
  // nobody afterwards, and others never; whatever the guest's policy says.
  void ExpectMappedPort(const std::string& host, const std::string& inner);
  static void SetUplinkMtu(uint32_t mtu);
  // Sends `size` bytes to who accepts the connection from `listener`, and says how many came.
  static size_t Deliver(const UniqueFd& listener, const UniqueFd& socket, size_t size);
  // Sends `size` bytes to an echo server and hears all of them back.
  static void Stream(const UniqueFd& socket, size_t size);
  // A connection of the guest's to an echo server, tried out; 0 or errno.
  static int TryTcp(const GuestStack& guest, const std::string& address, uint16_t port);
  static int TryUdp(const GuestStack& guest, const std::string& address, uint16_t port);

  static std::optional<NetNamespace> world_;
  static std::optional<NetNamespace> host_;  // this one
  bool ipv6_ = false;                        // whether the fabric carries it
  std::unique_ptr<Fabric> fabric_;
};

}  // namespace cube::net::testing

#endif  // CUBE_NET_TESTING_FABRIC_FIXTURE_H_
