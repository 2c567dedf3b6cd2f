#include "net/testing/fabric_fixture.h"

#include <cerrno>
#include <cstring>

#include "net/testing/program_fixture.h"

namespace cube::net::testing {

std::optional<NetNamespace> FabricFixture::world_;
std::optional<NetNamespace> FabricFixture::host_;

namespace {

Status SetUpWorld() {
  CUBE_ASSIGN(Netlink netlink, Netlink::Open());
  CUBE_ASSIGN(auto link, netlink.Find("world"));
  if (!link) return Errorf("the internet's interface");
  CUBE_TRY(netlink.SetUp(link->index));
  CUBE_TRY(netlink.SetUp(1));
  for (const char* address : {"192.0.2.80", "198.51.100.7"}) {
    CUBE_TRY(netlink.AddAddress(1, Address(address), 32));
  }
  return netlink.AddAddress(link->index, Address("203.0.113.2"), 24);
}

Status SetUpHosts(const NetNamespace& world) {
  CUBE_ASSIGN(Netlink netlink, Netlink::Open());
  CUBE_TRY(netlink.AddVeth("up", "world"));
  CUBE_ASSIGN(auto other, netlink.Find("world"));
  CUBE_ASSIGN(auto up, netlink.Find("up"));
  if (!other || !up) return Errorf("the uplink");
  CUBE_TRY(netlink.Move(other->index, world.fd()));
  CUBE_TRY(netlink.SetUp(up->index));
  CUBE_TRY(netlink.AddAddress(up->index, Address("203.0.113.1"), 24));
  CUBE_TRY(netlink.AddRoute(0, 0, Address("203.0.113.2")));
  Status done = Errorf("no thread");
  world.Run([&] { done = SetUpWorld(); });
  return done;
}

}  // namespace

void FabricFixture::SetUpTestSuite() {
  Status entered = EnterNamespace();
  ASSERT_TRUE(entered.ok()) << entered.error().message();
  auto host = NetNamespace::Current();
  auto world = NetNamespace::Create();
  ASSERT_TRUE(host.ok() && world.ok());
  host_ = std::move(*host);
  world_ = std::move(*world);
  Status set_up = SetUpHosts(*world_);
  ASSERT_TRUE(set_up.ok()) << set_up.error().message();
}

void FabricFixture::TearDownTestSuite() {
  world_.reset();
  host_.reset();
}

FabricOptions FabricFixture::Options() {
  FabricOptions options;
  options.prefix = "t";
  options.pins = "/sys/fs/bpf/test";
  return options;
}

void FabricFixture::SetUp() {
  auto fabric = Fabric::Open(Options());
  ASSERT_TRUE(fabric.ok()) << fabric.error().message();
  fabric_ = std::move(*fabric);
}

void FabricFixture::TearDown() {
  FabricOptions options = Options();
  if (fabric_ != nullptr) options.uplink = fabric_->uplink_name();
  fabric_.reset();
  Fabric::Remove(options);
}

UniqueFd FabricFixture::Sandbox(const std::string& id, const Policy& policy) {
  auto lent = fabric_->Lend();
  EXPECT_TRUE(lent.ok()) << lent.error().message();
  Status assigned = fabric_->Assign(lent->slot, id);
  EXPECT_TRUE(assigned.ok()) << assigned.error().message();
  Status ensured = fabric_->EnsureNetwork(id, policy);
  EXPECT_TRUE(ensured.ok()) << ensured.error().message();
  return std::move(lent->fd);
}

std::unique_ptr<GuestStack> FabricFixture::Guest(const std::string& id, const Policy& policy) {
  auto guest = GuestStack::Create(Sandbox(id, policy));
  EXPECT_TRUE(guest.ok()) << guest.error().message();
  return std::move(*guest);
}

Policy FabricFixture::Lists(const std::vector<std::string>& allow,
                            const std::vector<std::string>& deny, bool internet) {
  auto policy = Policy::Parse(allow, deny, internet);
  EXPECT_TRUE(policy.ok()) << policy.error().message();
  return *policy;
}

int FabricFixture::Echo(const UniqueFd& socket) {
  if (send(socket.get(), "ping", 4, MSG_NOSIGNAL) != 4) return errno;
  char answer[8] = {};
  ssize_t n = recv(socket.get(), answer, sizeof answer, 0);
  if (n < 0) return errno;
  return n == 4 && memcmp(answer, "ping", 4) == 0 ? 0 : EPROTO;
}

int FabricFixture::TryTcp(const GuestStack& guest, const std::string& address, uint16_t port) {
  UniqueFd socket = guest.space().Socket(SOCK_STREAM);
  int failed = Connect(socket, address, port);
  return failed != 0 ? failed : Echo(socket);
}

int FabricFixture::TryUdp(const GuestStack& guest, const std::string& address, uint16_t port) {
  UniqueFd socket = guest.space().Socket(SOCK_DGRAM);
  int failed = Connect(socket, address, port);
  return failed != 0 ? failed : Echo(socket);
}

}  // namespace cube::net::testing
