#include "bench/network/scene.h"

#include "net/netlink.h"
#include "net/testing/packet6.h"
#include "net/testing/program_fixture.h"

namespace cube::net {

void Must(const Status& status) {
  if (status.ok()) return;
  fprintf(stderr, "%s\n", status.error().message().c_str());
  exit(1);
}

void Keep(bench::Report* report, uint32_t count, const std::string& name, const char* unit,
          const std::vector<double>& samples, bool less_is_better, bool is_peer) {
  report->measurements.push_back({"network fabric", Format("%s, %u sandboxes", name.c_str(), count),
                                  unit, samples, "", less_is_better, is_peer});
}

Policy Rules(uint32_t seed, bool ipv6) {
  Policy policy;
  for (uint32_t i = 0; i < kRules; ++i) {
    uint32_t number = (seed * 7919 + i * 104729) % (1 << 20);
    PolicyRule rule;
    rule.network = {0x14000000 + number * 256, 24};
    (i % 2 == 0 ? policy.allow : policy.deny).push_back(rule);
    if (!ipv6) continue;
    PolicyRule6 rule6;
    rule6.network = {Uint128{0x2600} << 112 | Uint128{number} << 80, 48};
    (i % 2 == 0 ? policy.allow6 : policy.deny6).push_back(rule6);
  }
  return policy;
}

// The world behind "up", as in the tests.
testing::NetNamespace SetUpWorld() {
  Must(testing::EnterNamespace());
  Netlink netlink = Must(Netlink::Open());
  testing::NetNamespace world = Must(testing::NetNamespace::Create());
  Must(netlink.AddVeth("up", "world"));
  Must(netlink.Move((*Must(netlink.Find("world"))).index, world.fd()));
  uint32_t up = (*Must(netlink.Find("up"))).index;
  Must(netlink.SetUp(up));
  Must(netlink.AddAddress(up, testing::Address("203.0.113.1"), 24));
  Must(netlink.AddAddress(up, testing::Address6("2001:db8:1::1"), 64));
  Must(netlink.AddRoute(0, 0, testing::Address("203.0.113.2")));
  world.Run([] {
    Netlink inner = Must(Netlink::Open());
    uint32_t index = (*Must(inner.Find("world"))).index;
    Must(inner.SetUp(index));
    Must(inner.SetUp(1));
    Must(inner.AddAddress(1, testing::Address(kWorld), 32));
    Must(inner.AddAddress(index, testing::Address("203.0.113.2"), 24));
  });
  return world;
}

FabricOptions Options(bool ipv6) {
  FabricOptions options;
  options.prefix = "b";
  options.pins = "";
  options.max_flows = 1 << 20;  // nobody reaps those that have been closed
  options.ipv6 = ipv6;
  return options;
}

void MakeSandboxes(Fabric* fabric, uint32_t count) {
  while (fabric->sandboxes().size() < count) {
    auto next = static_cast<uint32_t>(fabric->sandboxes().size());
    Must(fabric->EnsureNetwork(Format("s%u", next), Rules(next, fabric->programs().ipv6())));
  }
}

}  // namespace cube::net
