#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <poll.h>

#include <cstring>
#include <random>

#include "net/reaper.h"
#include "net/testing/fabric_fixture.h"
#include "net/testing/packet6.h"

// Real traffic by IPv6, of a kernel's stack behind a TAP, and of a guest that writes what it likes.
namespace cube::net::testing {
namespace {

constexpr char kGuest6[] = "fdcb:6375:6265::15", kGateway6[] = "fdcb:6375:6265::16";

class Ipv6TrafficTest : public FabricFixture {
 protected:
  void SetUp() override {
    ipv6_ = true;
    FabricFixture::SetUp();
    ASSERT_EQ(fabric_->WhyNoIpv6(), "");
  }
};

TEST_F(Ipv6TrafficTest, TcpAndDatagrams) {
  EchoServer tcp(world_->Socket(SOCK_STREAM, kWorld6, 80));
  EchoServer udp(world_->Socket(SOCK_DGRAM, kWorld6, 9000));
  auto guest = Guest("one"), other = Guest("two");
  UniqueFd first = guest->space().Socket(SOCK_STREAM, "::", 5555, false);
  UniqueFd second = other->space().Socket(SOCK_STREAM, "::", 5555, false);
  ASSERT_EQ(Connect(first, kWorld6, 80), 0);
  ASSERT_EQ(Connect(second, kWorld6, 80), 0);
  Stream(first, 4 << 20);
  EXPECT_EQ(Echo(second), 0);
  EXPECT_EQ(TryUdp(*guest, kWorld6, 9000), 0);
  Traffic traffic = fabric_->TrafficOf(*fabric_->SlotOf("one"));
  EXPECT_GT(traffic.bytes_out, 4u << 20);
  EXPECT_GT(traffic.bytes_in, 4u << 20);
  EXPECT_EQ(traffic.flows, 2u);
  // Both families at once.
  EchoServer v4(world_->Socket(SOCK_STREAM, kWorld, 80));
  EXPECT_EQ(TryTcp(*guest, kWorld, 80), 0);
}

TEST_F(Ipv6TrafficTest, DatagramsAndTheirFragments) {
  EchoServer server(world_->Socket(SOCK_DGRAM, kWorld6, 9000));
  auto guest = Guest("one"), other = Guest("two");
  UniqueFd socket = guest->space().Socket(SOCK_DGRAM, "::");
  ASSERT_EQ(Connect(socket, kWorld6, 9000), 0);
  ExpectDatagrams(socket);
  // By a port of the host's, and from the host.
  EchoServer inner(other->space().Socket(SOCK_DGRAM, kGuest6, 9000));
  ASSERT_TRUE(fabric_->MapPort("two", {kUdp, 18000, 9000}).ok());
  UniqueFd client = world_->Socket(SOCK_DGRAM, "::");
  ASSERT_EQ(Connect(client, kHost6, 18000), 0);
  ExpectDatagrams(client);
  UniqueFd host = host_->Socket(SOCK_DGRAM, "::");
  std::string address = AddressText(fabric_->HostAddress6(*fabric_->SlotOf("two")));
  ASSERT_EQ(Connect(host, address, 9000), 0);
  ExpectDatagrams(host);
}

TEST_F(Ipv6TrafficTest, ASmallerPathIsFoundOutByFragments) {
  UniqueFd server = world_->Socket(SOCK_DGRAM, kWorld6, 9000);
  auto guest = Guest("one");
  UniqueFd socket = guest->space().Socket(SOCK_DGRAM, "::");
  ASSERT_EQ(Connect(socket, kWorld6, 9000), 0);
  SetUplinkMtu(1300);
  ASSERT_TRUE(fabric_->RefreshAddresses().ok());
  // The first one's parts are too long, of which the guest is told.
  Bytes sent(4000, 'x'), heard(65536);
  ASSERT_EQ(send(socket.get(), sent.data(), sent.size(), 0), 4000);
  pollfd told = {socket.get(), 0, 0};
  ASSERT_EQ(poll(&told, 1, 10'000), 1);
  int failed = 0, mtu = 0;
  socklen_t size = sizeof failed;
  ASSERT_EQ(getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &failed, &size), 0);
  EXPECT_EQ(failed, EMSGSIZE);
  ASSERT_EQ(getsockopt(socket.get(), IPPROTO_IPV6, IPV6_MTU, &mtu, &size), 0);
  EXPECT_EQ(mtu, 1300);
  ASSERT_EQ(send(socket.get(), sent.data(), sent.size(), 0), 4000);
  EXPECT_EQ(recv(server.get(), heard.data(), heard.size(), 0), 4000);
  SetUplinkMtu(1500);
}

TEST_F(Ipv6TrafficTest, Ping) {
  auto guest = Guest("one");
  UniqueFd raw;
  guest->space().Run([&] { raw.Reset(socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6)); });
  timeval limit = {10, 0};
  setsockopt(raw.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  icmp6_filter filter;
  ICMP6_FILTER_SETBLOCKALL(&filter);
  ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
  setsockopt(raw.get(), IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter);
  ASSERT_EQ(Connect(raw, kWorld6, 0), 0);
  const Bytes echo = {128, 0, 0, 0, 1, 65, 0, 1, 'p', 'i', 'n', 'g'};
  ASSERT_EQ(send(raw.get(), echo.data(), echo.size(), 0), 12);
  Bytes answer(100);
  ASSERT_EQ(recv(raw.get(), answer.data(), answer.size(), 0), 12);
  EXPECT_EQ(answer[0], 129);
  EXPECT_EQ(Get16(answer, 4), 321);
}

TEST_F(Ipv6TrafficTest, RefusalsAreHeardOfAtOnce) {
  EchoServer tcp(world_->Socket(SOCK_STREAM, kWorld6, 80));
  EchoServer udp(world_->Socket(SOCK_DGRAM, kWorld6, 9000));
  auto guest = Guest("one", Lists({}, {kWorld6}, true));
  EXPECT_EQ(TryTcp(*guest, kWorld6, 80), ECONNREFUSED);
  EXPECT_EQ(TryUdp(*guest, kWorld6, 9000), EACCES);
  // The world's own refusals arrive as well.
  ASSERT_TRUE(fabric_->EnsureNetwork("one", Policy()).ok());
  EXPECT_EQ(TryTcp(*guest, kWorld6, 81), ECONNREFUSED);
  EXPECT_EQ(TryUdp(*guest, kWorld6, 9001), ECONNREFUSED);
  EXPECT_EQ(TryTcp(*guest, kWorld6, 80), 0);
  EXPECT_EQ(TryUdp(*guest, kWorld6, 9000), 0);
}

TEST_F(Ipv6TrafficTest, ASmallerPathIsFoundOut) {
  // One that sends nothing back: what is longer than this side takes is lost on that side.
  UniqueFd listener = world_->Socket(SOCK_STREAM, kWorld6, 80);
  auto guest = Guest("one");
  SetUplinkMtu(1300);
  UniqueFd socket = guest->space().Socket(SOCK_STREAM, "::");
  ASSERT_EQ(Connect(socket, kWorld6, 80), 0);
  EXPECT_EQ(Deliver(listener, socket, 1 << 20), 1u << 20);
  int mtu = 0;
  socklen_t size = sizeof mtu;
  ASSERT_EQ(getsockopt(socket.get(), IPPROTO_IPV6, IPV6_MTU, &mtu, &size), 0);
  EXPECT_EQ(mtu, 1300);
  SetUplinkMtu(1500);
}

TEST_F(Ipv6TrafficTest, AChangedPolicyEndsWhatItRefuses) {
  EchoServer server(world_->Socket(SOCK_STREAM, kWorld6, 80));
  auto guest = Guest("one");
  UniqueFd socket = guest->space().Socket(SOCK_STREAM, "::");
  ASSERT_EQ(Connect(socket, kWorld6, 80), 0);
  ASSERT_EQ(Echo(socket), 0);
  ASSERT_TRUE(fabric_->EnsureNetwork("one", Lists({"0.0.0.0/0"}, {"::/0"}, true)).ok());
  EXPECT_NE(Echo(socket), 0);
  ASSERT_TRUE(fabric_->EnsureNetwork("one", Lists({"2001:db8:80::/48"}, {"::/0"}, true)).ok());
  EXPECT_EQ(TryTcp(*guest, kWorld6, 80), 0);
  while (!fabric_->Tidy()) std::this_thread::yield();
  EXPECT_EQ(TryTcp(*guest, kWorld6, 80), 0);
}

TEST_F(Ipv6TrafficTest, TheHostAndNeighboursAreNotReached) {
  EchoServer host(host_->Socket(SOCK_STREAM, kHost6, 8080));
  EchoServer inside(host_->Socket(SOCK_STREAM, "fdcb:6375:6265:1::1", 8081));
  auto guest = Guest("one", Lists({"::/0"}, {}, true)), other = Guest("two");
  EchoServer neighbour(other->space().Socket(SOCK_STREAM, kGuest6, 8082));
  EXPECT_EQ(TryTcp(*guest, kHost6, 8080), ECONNREFUSED);
  EXPECT_EQ(TryTcp(*guest, "fdcb:6375:6265:1::1", 8081), ECONNREFUSED);
  EXPECT_EQ(TryTcp(*guest, kGateway6, 8081), ECONNREFUSED);
  for (const char* address : {"fdcb:6375:6265:1::3", "fdcb:6375:6265:1::2"}) {
    EXPECT_EQ(TryTcp(*guest, address, 8082), ECONNREFUSED);
  }
  // Nor by a port that leads there.
  ASSERT_TRUE(fabric_->MapPort("two", {kTcp, 18000, 8082}).ok());
  EXPECT_EQ(TryTcp(*guest, kHost6, 18000), ECONNREFUSED);
  EXPECT_EQ(host.served() + inside.served() + neighbour.served(), 0u);
}

TEST_F(Ipv6TrafficTest, PortsThatAreMapped) { ExpectMappedPort(kHost6, kGuest6); }

TEST_F(Ipv6TrafficTest, AMappedPortIsOfBothFamilies) {
  auto guest = Guest("one");
  EchoServer v4(guest->space().Socket(SOCK_STREAM, "169.254.0.21", 8000));
  EchoServer v6(guest->space().Socket(SOCK_STREAM, kGuest6, 8000));
  ASSERT_TRUE(fabric_->MapPort("one", {kTcp, 18000, 8000}).ok());
  for (int i = 1; i <= 3; ++i) {
    UniqueFd by_v4 = world_->Socket(SOCK_STREAM), by_v6 = world_->Socket(SOCK_STREAM, "::");
    ASSERT_EQ(Connect(by_v4, kHost, 18000), 0);
    ASSERT_EQ(Connect(by_v6, kHost6, 18000), 0);
    EXPECT_EQ(Echo(by_v4) + Echo(by_v6), 0);
    EXPECT_EQ(v4.served(), static_cast<uint64_t>(i));
    EXPECT_EQ(v6.served(), static_cast<uint64_t>(i));
  }
  EchoServer udp(guest->space().Socket(SOCK_DGRAM, kGuest6, 9000));
  ASSERT_TRUE(fabric_->MapPort("one", {kUdp, 18000, 9000}).ok());
  UniqueFd datagrams = world_->Socket(SOCK_DGRAM, "::");
  ASSERT_EQ(Connect(datagrams, kHost6, 18000), 0);
  EXPECT_EQ(Echo(datagrams), 0);
}

TEST_F(Ipv6TrafficTest, TheHostSpeaksToASandbox) {
  auto guest = Guest("one", Lists({}, {"0.0.0.0/0"}, true));
  EchoServer server(guest->space().Socket(SOCK_STREAM, kGuest6, 8000));
  std::string address = AddressText(fabric_->HostAddress6(*fabric_->SlotOf("one")));
  UniqueFd client = host_->Socket(SOCK_STREAM, "::");
  ASSERT_EQ(Connect(client, address, 8000), 0);
  Stream(client, 1 << 20);
  // Nobody listens: the guest says so.
  EXPECT_EQ(Connect(host_->Socket(SOCK_STREAM, "::"), address, 8001), ECONNREFUSED);
  // From another of the host's addresses it is not the host.
  UniqueFd other = host_->Socket(SOCK_DGRAM, kHost6, 7777);
  ASSERT_EQ(Connect(other, address, 8000), 0);
  UniqueFd inner = guest->space().Socket(SOCK_DGRAM, kGuest6, 8000);
  send(other.get(), "x", 1, 0);
  EXPECT_EQ(Echo(client), 0);  // what was sent before that has been dealt with
  char byte;
  EXPECT_EQ(recv(inner.get(), &byte, 1, MSG_DONTWAIT), -1);
}

TEST_F(Ipv6TrafficTest, AnotherDaemonTakesOver) {
  EchoServer server(world_->Socket(SOCK_STREAM, kWorld6, 80));
  auto guest = Guest("one");
  UniqueFd socket = guest->space().Socket(SOCK_STREAM, "::");
  ASSERT_EQ(Connect(socket, kWorld6, 80), 0);
  fabric_.reset();
  EXPECT_EQ(Echo(socket), 0);
  auto again = Fabric::Open(Options());
  ASSERT_TRUE(again.ok()) << again.error().message();
  fabric_ = std::move(*again);
  EXPECT_EQ(Echo(socket), 0);
  // One without IPv6 ends it.
  fabric_.reset();
  ipv6_ = false;
  auto without = Fabric::Open(Options());
  ASSERT_TRUE(without.ok()) << without.error().message();
  fabric_ = std::move(*without);
  EXPECT_EQ(fabric_->WhyNoIpv6(), "network.ipv6 is false");
  ASSERT_EQ(send(socket.get(), "x", 1, MSG_NOSIGNAL), 1);
  // What was sent before that has been dealt with.
  EchoServer v4(world_->Socket(SOCK_STREAM, kWorld, 80));
  EXPECT_EQ(TryTcp(*guest, kWorld, 80), 0);
  char byte;
  EXPECT_EQ(recv(socket.get(), &byte, 1, MSG_DONTWAIT), -1);
  EXPECT_GE(fabric_->TrafficOf(*fabric_->SlotOf("one")).denied, 1u);
}

TEST_F(Ipv6TrafficTest, TheReaperTakesWhatIsOver) {
  EchoServer server(world_->Socket(SOCK_DGRAM, kWorld6, 9000));
  auto guest = Guest("one");
  EXPECT_EQ(TryUdp(*guest, kWorld6, 9000), 0);
  Reaper reaper(&fabric_->programs());
  while (!reaper.Step()) {
  }
  uint64_t before = reaper.statistics().flows;
  EXPECT_EQ(before, 1u);
  fabric_->ReleaseNetwork("one");
  while (!reaper.Step()) {
  }
  EXPECT_EQ(reaper.statistics().flows, 0u);
  EXPECT_EQ(reaper.statistics().reaped, 1u);
}

TEST_F(Ipv6TrafficTest, AnUplinkWithoutAnAddressSaysSo) {
  auto guest = Guest("one");
  FabricOptions options = Options();
  options.uplink = fabric_->uplink_name();
  host_->Run([] { ASSERT_EQ(system("ip -6 addr del 2001:db8:1::1/64 dev up"), 0); });
  ASSERT_TRUE(fabric_->RefreshAddresses().ok());
  EXPECT_EQ(fabric_->WhyNoIpv6(), "the uplink up has no global address of IPv6");
  EXPECT_EQ(TryTcp(*guest, kWorld6, 80), ECONNREFUSED);
  auto netlink = Netlink::Open();
  auto up = netlink->Find("up");
  ASSERT_TRUE(netlink->AddAddress((*up)->index, Address6(kHost6), 64).ok());
  ASSERT_TRUE(fabric_->RefreshAddresses().ok());
  EXPECT_EQ(fabric_->WhyNoIpv6(), "");
}

TEST_F(Ipv6TrafficTest, NothingForgedGetsOut) {
  UniqueFd tap = Sandbox("one"), neighbour = Sandbox("two");
  EchoServer server(world_->Socket(SOCK_DGRAM, kWorld6, 9000));
  Frame6 good;
  good.source = Address6(kGuest6);
  good.target = Address6(kWorld6);
  good.protocol = kUdp;
  good.source_port = 1999;
  good.target_port = 9000;
  good.payload = {'p', 'r', 'o', 'b', 'e'};
  // A datagram there and back: everything that was written before it has been dealt with.
  auto probe = [&] {
    if (!WriteFrame(tap.get(), good.Build())) return false;
    for (;;) {
      Bytes answer = ReadFrame(tap.get(), 10'000);
      if (answer.empty()) return false;
      Seen6 seen = Read6(answer);
      if (seen.protocol == kUdp && seen.target_port == 1999) return true;
    }
  };
  ASSERT_TRUE(probe());
  FrameListener world(*world_, "world"), inside(*host_, "t-host"), other(*host_, "t-peer");
  std::mt19937 random(20260727);
  const Bytes seeds[] = {good.Build(),
                         Solicitation(kGuest6, kGateway6).Build(),
                         [&] {
                           Frame6 frame = good;
                           frame.protocol = kTcp;
                           return frame.Build();
                         }(),
                         [&] {
                           Frame6 frame = good;
                           frame.protocol = kIcmp6;
                           frame.icmp_type = 1;
                           frame.payload = Bytes(60, 0x60);
                           return frame.Build();
                         }(),
                         good.Part(0, 8).Build(),
                         good.Part(8, 8).Build()};
  for (int i = 0; i < 20'000; ++i) {
    Bytes frame = seeds[random() % std::size(seeds)];
    for (uint32_t n = random() % 4; n > 0; --n) {
      size_t from = random() % 2 == 0 ? 0 : 14;
      frame[from + random() % (frame.size() - from)] = static_cast<uint8_t>(random());
    }
    if (random() % 8 == 0) frame.resize(14 + random() % 200);
    WriteFrame(tap.get(), frame);
    if (i % 500 == 0) {
      ASSERT_TRUE(probe()) << i;
    }
  }
  ASSERT_TRUE(probe());
  for (Bytes frame = world.Next(); !frame.empty(); frame = world.Next()) {
    EXPECT_NE(memcmp(&frame[6], "\x02\xcb\0\0\0\x15", 6), 0);
    if (Get16(frame, 12) != 0x86dd) continue;  // the hosts' own ARP
    Seen6 seen = Read6(frame);
    // The hosts have addresses of their own on that link.
    bool is_local = (ntohl(seen.source.words[0]) >> 22) == 0xfe800000u >> 22;
    EXPECT_TRUE(is_local || seen.source == Address6(kHost6) || seen.source == Address6(kWorld6) ||
                seen.source == Address6("2001:db8:1::2") || seen.source == bpf::address6{})
        << AddressText(seen.source);
  }
  EXPECT_TRUE(inside.Next().empty());
  EXPECT_TRUE(other.Next().empty());
  EXPECT_TRUE(ReadFrame(neighbour.get(), 0).empty());
}

}  // namespace
}  // namespace cube::net::testing
