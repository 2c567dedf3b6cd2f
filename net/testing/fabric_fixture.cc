#include "net/testing/fabric_fixture.h"

#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

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
  for (const char* address : {"2001:db8:80::80", "2001:db8:66::7"}) {
    CUBE_TRY(netlink.AddAddress(1, Address6(address), 128));
  }
  CUBE_TRY(netlink.AddAddress(link->index, Address6("2001:db8:1::2"), 64));
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
  CUBE_TRY(netlink.AddAddress(up->index, Address6("2001:db8:1::1"), 64));
  CUBE_TRY(netlink.AddRoute({}, 0, Address6("2001:db8:1::2")));
  Status done = Errorf("no thread");
  world.Run([&] { done = SetUpWorld(); });
  return done;
}

// For a socket of the same family.
std::string AnyOf(const std::string& address) {
  return address.find(':') == std::string::npos ? "" : "::";
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

FabricOptions FabricFixture::Options() const {
  FabricOptions options;
  options.prefix = "t";
  options.pins = "/sys/fs/bpf/test";
  options.ipv6 = ipv6_;
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

void FabricFixture::ExpectDatagrams(const UniqueFd& socket) {
  for (size_t size : {1, 1452, 1453, 1472, 1473, 4000, 8000, 60000}) {
    Bytes sent(size), heard(65536);
    for (size_t i = 0; i < size; ++i) sent[i] = static_cast<uint8_t>(size + i * 7 + i / 256);
    ASSERT_EQ(send(socket.get(), sent.data(), size, 0), static_cast<ssize_t>(size));
    ssize_t n = recv(socket.get(), heard.data(), heard.size(), 0);
    ASSERT_EQ(n, static_cast<ssize_t>(size));
    heard.resize(size);
    EXPECT_EQ(heard, sent);
  }
}

void FabricFixture::ExpectMappedPort(const std::string& host, const std::string& inner) {
  auto guest = Guest("one", Lists({}, {"0.0.0.0/0"}, true));
  EchoServer server(guest->space().Socket(SOCK_STREAM, inner, 8000));
  EchoServer own(host_->Socket(SOCK_STREAM, host, 18001));
  ASSERT_TRUE(fabric_->MapPort("one", {IPPROTO_TCP, 18000, 8000}).ok());
  UniqueFd client = world_->Socket(SOCK_STREAM, AnyOf(host));
  ASSERT_EQ(Connect(client, host, 18000), 0);
  Stream(client, 1 << 20);
  EXPECT_EQ(server.served(), 1u);
  UniqueFd other = world_->Socket(SOCK_STREAM, AnyOf(host));
  ASSERT_EQ(Connect(other, host, 18001), 0);
  EXPECT_EQ(Echo(other), 0);
  EXPECT_EQ(own.served(), 1u);
  // The client is seen as what it is.
  UniqueFd peer = guest->space().Socket(SOCK_STREAM, inner, 8002);
  ASSERT_TRUE(fabric_->MapPort("one", {IPPROTO_TCP, 18002, 8002}).ok());
  UniqueFd seen = world_->Socket(SOCK_STREAM, AnyOf(host));
  ASSERT_EQ(Connect(seen, host, 18002), 0);
  sockaddr_storage here = {}, there = {};
  socklen_t size = sizeof here;
  UniqueFd accepted(accept4(peer.get(), reinterpret_cast<sockaddr*>(&there), &size, SOCK_CLOEXEC));
  ASSERT_TRUE(accepted.valid());
  ASSERT_EQ(getsockname(seen.get(), reinterpret_cast<sockaddr*>(&here), &size), 0);
  EXPECT_EQ(memcmp(&here, &there, size), 0);
  // What is open stays so.
  ASSERT_TRUE(fabric_->UnmapPort(IPPROTO_TCP, 18000).ok());
  EXPECT_EQ(Connect(world_->Socket(SOCK_STREAM, AnyOf(host)), host, 18000), ECONNREFUSED);
  EXPECT_EQ(Echo(client), 0);
}

void FabricFixture::SetUplinkMtu(uint32_t mtu) {
  auto netlink = Netlink::Open();
  auto link = netlink->Find("up");
  EXPECT_TRUE(netlink->SetMtu((*link)->index, mtu).ok());
}

size_t FabricFixture::Deliver(const UniqueFd& listener, const UniqueFd& socket, size_t size) {
  size_t heard = 0;
  std::thread reader([&] {
    UniqueFd peer(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::vector<uint8_t> buffer(1 << 16);
    for (ssize_t n = 1; n > 0 && heard < size;
         heard += static_cast<size_t>(std::max(n, ssize_t{0}))) {
      n = recv(peer.get(), buffer.data(), buffer.size(), 0);
    }
  });
  std::vector<uint8_t> sent(size);
  for (size_t done = 0; done < size;) {
    ssize_t n = send(socket.get(), sent.data() + done, size - done, MSG_NOSIGNAL);
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  reader.join();
  return heard;
}

void FabricFixture::Stream(const UniqueFd& socket, size_t size) {
  Bytes sent(size);
  uint32_t seed = 1;
  for (uint8_t& byte : sent)
    byte = static_cast<uint8_t>((seed = seed * 1664525 + 1013904223) >> 24);
  std::thread writer([&] {
    size_t done = 0;
    while (done < size) {
      ssize_t n = send(socket.get(), sent.data() + done, size - done, MSG_NOSIGNAL);
      if (n <= 0) return;
      done += static_cast<size_t>(n);
    }
  });
  Bytes heard(size);
  size_t done = 0;
  while (done < size) {
    ssize_t n = recv(socket.get(), heard.data() + done, size - done, 0);
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  writer.join();
  EXPECT_EQ(done, size);
  EXPECT_TRUE(heard == sent);
}

int FabricFixture::TryTcp(const GuestStack& guest, const std::string& address, uint16_t port) {
  UniqueFd socket = guest.space().Socket(SOCK_STREAM, AnyOf(address));
  int failed = Connect(socket, address, port);
  return failed != 0 ? failed : Echo(socket);
}

int FabricFixture::TryUdp(const GuestStack& guest, const std::string& address, uint16_t port) {
  UniqueFd socket = guest.space().Socket(SOCK_DGRAM, AnyOf(address));
  int failed = Connect(socket, address, port);
  return failed != 0 ? failed : Echo(socket);
}

}  // namespace cube::net::testing
