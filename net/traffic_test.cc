#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>

#include <cstring>
#include <thread>

#include "net/reaper.h"
#include "net/tap_device.h"
#include "net/testing/fabric_fixture.h"

// Real traffic of a kernel's stack behind a TAP, through the fabric, to servers of another.
namespace cube::net::testing {
namespace {

using TrafficTest = FabricFixture;

TEST_F(TrafficTest, TcpWithAndWithoutOffloads) {
  EchoServer server(world_->Socket(SOCK_STREAM, kWorld, 80));
  auto guest = Guest("one");
  UniqueFd socket = guest->space().Socket(SOCK_STREAM);
  ASSERT_EQ(Connect(socket, kWorld, 80), 0);
  Stream(socket, 4 << 20);
  EXPECT_EQ(guest->ipv6_frames(), 0u);
  Traffic traffic = fabric_->TrafficOf(*fabric_->SlotOf("one"));
  EXPECT_GT(traffic.bytes_out, 4u << 20);
  EXPECT_GT(traffic.bytes_in, 4u << 20);
  EXPECT_EQ(traffic.flows, 1u);
}

TEST_F(TrafficTest, SandboxesShareAnAddressAndNothingElse) {
  EchoServer server(world_->Socket(SOCK_STREAM, kWorld, 80));
  auto one = Guest("one"), two = Guest("two");
  UniqueFd first = one->space().Socket(SOCK_STREAM, "", 5555, false);
  UniqueFd second = two->space().Socket(SOCK_STREAM, "", 5555, false);
  ASSERT_EQ(Connect(first, kWorld, 80), 0);
  ASSERT_EQ(Connect(second, kWorld, 80), 0);
  EXPECT_EQ(Echo(first), 0);
  EXPECT_EQ(Echo(second), 0);
}

TEST_F(TrafficTest, DatagramsAndTheirFragments) {
  EchoServer server(world_->Socket(SOCK_DGRAM, kWorld, 9000));
  auto guest = Guest("one");
  UniqueFd socket = guest->space().Socket(SOCK_DGRAM);
  int off = IP_PMTUDISC_DONT;
  setsockopt(socket.get(), IPPROTO_IP, IP_MTU_DISCOVER, &off, sizeof off);
  ASSERT_EQ(Connect(socket, kWorld, 9000), 0);
  ExpectDatagrams(socket);
}

TEST_F(TrafficTest, Ping) {
  auto guest = Guest("one");
  UniqueFd raw;
  guest->space().Run([&] { raw.Reset(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP)); });
  timeval limit = {10, 0};
  setsockopt(raw.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ASSERT_EQ(Connect(raw, kWorld, 0), 0);
  Frame echo;
  echo.protocol = 1;
  echo.source_port = 321;
  echo.payload = Bytes(56, 'p');
  Bytes packet = echo.Packet();
  ASSERT_EQ(send(raw.get(), packet.data() + 20, packet.size() - 20, 0), 64);
  Bytes answer(1500);
  ssize_t n = recv(raw.get(), answer.data(), answer.size(), 0);
  ASSERT_EQ(n, 84);
  answer.resize(84);
  Seen seen = ReadPacket(answer);
  EXPECT_TRUE(seen.valid);
  EXPECT_EQ(seen.icmp_type, 0);
  EXPECT_EQ(seen.source_port, 321);
}

TEST_F(TrafficTest, RefusalsAreHeardOfAtOnce) {
  EchoServer tcp(world_->Socket(SOCK_STREAM, kWorld, 80));
  EchoServer udp(world_->Socket(SOCK_DGRAM, kWorld, 9000));
  auto guest = Guest("one", Lists({}, {kWorld}, true));
  EXPECT_EQ(TryTcp(*guest, kWorld, 80), ECONNREFUSED);
  EXPECT_EQ(TryUdp(*guest, kWorld, 9000), EHOSTUNREACH);
  // The world's own refusals arrive as well.
  ASSERT_TRUE(fabric_->EnsureNetwork("one", Policy()).ok());
  EXPECT_EQ(TryTcp(*guest, kWorld, 81), ECONNREFUSED);
  EXPECT_EQ(TryUdp(*guest, kWorld, 9001), ECONNREFUSED);
  EXPECT_EQ(TryTcp(*guest, kWorld, 80), 0);
  EXPECT_EQ(TryUdp(*guest, kWorld, 9000), 0);
}

TEST_F(TrafficTest, ASmallerPathIsFoundOut) {
  // One that sends nothing back: what is longer than this side takes is lost on that side.
  UniqueFd listener = world_->Socket(SOCK_STREAM, kWorld, 80);
  auto guest = Guest("one");
  SetUplinkMtu(1300);
  UniqueFd socket = guest->space().Socket(SOCK_STREAM);
  ASSERT_EQ(Connect(socket, kWorld, 80), 0);
  EXPECT_EQ(Deliver(listener, socket, 1 << 20), 1u << 20);
  int mtu = 0;
  socklen_t size = sizeof mtu;
  ASSERT_EQ(getsockopt(socket.get(), IPPROTO_IP, IP_MTU, &mtu, &size), 0);
  EXPECT_EQ(mtu, 1300);
  SetUplinkMtu(1500);
}

TEST_F(TrafficTest, ClosingAndUsingAPortAgain) {
  EchoServer server(world_->Socket(SOCK_STREAM, kWorld, 80));
  auto guest = Guest("one");
  for (int i = 0; i < 20; ++i) {
    UniqueFd socket = guest->space().Socket(SOCK_STREAM, "", 6000, false);
    ASSERT_TRUE(socket.valid());
    ASSERT_EQ(Connect(socket, kWorld, 80), 0) << i;
    EXPECT_EQ(Echo(socket), 0);
    // Every other one with a reset.
    linger abort = {i % 2, 0};
    setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
    if (i % 2 == 0) {
      // The other side's FIN comes first, so that nothing lingers here.
      shutdown(socket.get(), SHUT_WR);
      char byte;
      EXPECT_EQ(recv(socket.get(), &byte, 1, 0), 0);
      abort.l_onoff = 1;
      setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
    }
  }
}

TEST_F(TrafficTest, APolicyThatChangesWhileADownloadRuns) {
  EchoServer server(world_->Socket(SOCK_STREAM, kWorld, 80));
  auto guest = Guest("one");
  UniqueFd socket = guest->space().Socket(SOCK_STREAM);
  ASSERT_EQ(Connect(socket, kWorld, 80), 0);
  ASSERT_EQ(Echo(socket), 0);
  // Of what it still allows nothing is lost.
  ASSERT_TRUE(fabric_->EnsureNetwork("one", Lists({kWorld}, {"0.0.0.0/0"}, true)).ok());
  Stream(socket, 1 << 20);
  ASSERT_TRUE(fabric_->EnsureNetwork("one", Lists({kOther}, {"0.0.0.0/0"}, true)).ok());
  EXPECT_EQ(Echo(socket), ECONNRESET);
  EXPECT_EQ(TryTcp(*guest, kWorld, 80), ECONNREFUSED);
}

TEST_F(TrafficTest, PortsThatAreMapped) {
  ExpectMappedPort(kHost, "169.254.0.21");
  ASSERT_EQ(fabric_->Ports("one").size(), 1u);
  EXPECT_FALSE(fabric_->MapPort("two", {IPPROTO_TCP, 18001, 8000}).ok());
  EXPECT_FALSE(fabric_->MapPort("one", {IPPROTO_TCP, 18002, 8001}).ok());
}

TEST_F(TrafficTest, TheHostSpeaksToASandbox) {
  auto guest = Guest("one", Lists({}, {"0.0.0.0/0"}, true));
  EchoServer server(guest->space().Socket(SOCK_STREAM, "169.254.0.21", 8000));
  in_addr address = {fabric_->SlotState(*fabric_->SlotOf("one")).host_address};
  UniqueFd client = host_->Socket(SOCK_STREAM);
  ASSERT_EQ(Connect(client, inet_ntoa(address), 8000), 0);
  Stream(client, 1 << 20);
}

TEST_F(TrafficTest, NeitherTheHostNorANeighbourCanBeReached) {
  auto one = Guest("one", Lists({"0.0.0.0/0", "198.18.0.0/16", "203.0.113.0/24"}, {}, true));
  auto two = Guest("two");
  ASSERT_TRUE(fabric_->MapPort("two", {IPPROTO_TCP, 18000, 7000}).ok());
  EchoServer neighbour(two->space().Socket(SOCK_STREAM, "", 7000));
  EchoServer host(host_->Socket(SOCK_STREAM, "", 7000));
  EchoServer host_udp(host_->Socket(SOCK_DGRAM, "", 7000));
  in_addr other = {fabric_->SlotState(*fabric_->SlotOf("two")).host_address};
  in_addr own = {fabric_->SlotState(*fabric_->SlotOf("one")).host_address};
  for (const char* address :
       {"203.0.113.1", "198.18.0.1", "169.254.0.22", "169.254.169.254", "10.0.0.1", "192.168.0.1",
        "172.16.0.1", "100.64.0.1", "198.19.255.255", "240.0.0.1"}) {
    EXPECT_EQ(TryTcp(*one, address, 7000), ECONNREFUSED) << address;
    EXPECT_EQ(TryUdp(*one, address, 7000), EHOSTUNREACH) << address;
  }
  for (in_addr address : {other, own}) {
    std::string text = inet_ntoa(address);
    EXPECT_EQ(TryTcp(*one, text, 7000), ECONNREFUSED) << text;
  }
  EXPECT_EQ(TryTcp(*one, kHost, 18000), ECONNREFUSED);
  EXPECT_NE(TryUdp(*one, "255.255.255.255", 7000), 0);
  EXPECT_NE(TryUdp(*one, "224.0.0.1", 7000), 0);
  EXPECT_EQ(host.served() + host_udp.served() + neighbour.served(), 0u);
}

TEST_F(TrafficTest, ADaemonThatIsStartedAgainFindsAllAsItWas) {
  EchoServer server(world_->Socket(SOCK_STREAM, kWorld, 80));
  auto guest = Guest("one", Lists({kWorld}, {"0.0.0.0/0"}, true));
  ASSERT_TRUE(fabric_->MapPort("one", {IPPROTO_TCP, 18000, 8000}).ok());
  UniqueFd socket = guest->space().Socket(SOCK_STREAM);
  ASSERT_EQ(Connect(socket, kWorld, 80), 0);
  fabric_.reset();
  EXPECT_EQ(Echo(socket), 0);  // meanwhile
  auto again = Fabric::Open(Options());
  ASSERT_TRUE(again.ok()) << again.error().message();
  fabric_ = std::move(*again);
  EXPECT_EQ(Echo(socket), 0);
  ASSERT_TRUE(fabric_->SlotOf("one").has_value());
  EXPECT_EQ(fabric_->Ports("one").size(), 1u);
  EXPECT_EQ(TryTcp(*guest, kOther, 80), ECONNREFUSED);  // the policy still holds
  ASSERT_TRUE(fabric_->EnsureNetwork("one", Lists({kWorld}, {"0.0.0.0/0"}, true)).ok());
  EXPECT_EQ(Echo(socket), 0);
  fabric_->ReleaseNetwork("one");
  fabric_->ReleaseNetwork("one");
  EXPECT_FALSE(fabric_->SlotOf("one").has_value());
  EXPECT_EQ(fabric_->Ports("one").size(), 0u);
  // The guest that was let go is mute.
  EXPECT_EQ(send(socket.get(), "ping", 4, 0), 4);
  timeval limit = {0, 200'000};
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  char byte;
  EXPECT_EQ(recv(socket.get(), &byte, 1, 0), -1);
}

TEST_F(TrafficTest, ATapThatIsStillHeldIsNotLentAgain) {
  ASSERT_TRUE(fabric_->Fill(3).ok());
  EXPECT_EQ(fabric_->free_taps(), 3u);
  UniqueFd held = Sandbox("one");
  std::string name = fabric_->TapName(*fabric_->SlotOf("one"));
  fabric_->ReleaseNetwork("one");
  auto lent = fabric_->Lend();
  ASSERT_TRUE(lent.ok());
  EXPECT_NE(lent->name, name);
  lent->fd.Reset();
  fabric_->GiveBack(lent->slot);
  held.Reset();
  std::vector<LentTap> all;
  std::set<std::string> names;
  while (fabric_->free_taps() != 0) {
    auto again = fabric_->Lend();
    ASSERT_TRUE(again.ok());
    names.insert(again->name);
    all.push_back(std::move(*again));
  }
  EXPECT_EQ(names.size(), 3u);
  EXPECT_TRUE(names.contains(name));
}

TEST_F(TrafficTest, TenThousandFlowsAtOnce) {
  constexpr int kFlows = 10'000;
  UniqueFd bound = world_->Socket(SOCK_DGRAM, kWorld, 9000);
  int size = 8 << 20;
  setsockopt(bound.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  EchoServer server(std::move(bound));
  UniqueFd tap = Sandbox("one");
  std::vector<bool> heard(65536);
  int count = 0;
  Frame frame;
  frame.source = Address("169.254.0.21");
  frame.target = Address(kWorld);
  frame.protocol = 17;
  frame.target_port = 9000;
  auto hear = [&](int milliseconds) {
    Bytes answer = ReadFrame(tap.get(), milliseconds);
    if (answer.empty()) return false;
    Seen seen = Read(answer);
    if (seen.valid && seen.protocol == 17 && !heard[seen.target_port]) {
      heard[seen.target_port] = true;
      ++count;
    }
    return true;
  };
  for (int i = 0; i < kFlows; ++i) {
    frame.source_port = static_cast<uint16_t>(2000 + i);
    ASSERT_TRUE(WriteFrame(tap.get(), frame.Build()));
    while (i - count > 100 && hear(500)) {
    }
  }
  // What was lost on the way is sent again.
  for (int rounds = 0; count < kFlows; ++rounds) {
    ASSERT_LT(rounds, 20) << count;
    while (count < kFlows && hear(500)) {
    }
    for (int i = 0; i < kFlows; ++i) {
      frame.source_port = static_cast<uint16_t>(2000 + i);
      if (heard[frame.source_port]) continue;
      ASSERT_TRUE(WriteFrame(tap.get(), frame.Build()));
    }
  }
  Reaper reaper(&fabric_->programs());
  while (!reaper.Step()) {
  }
  EXPECT_EQ(reaper.statistics().flows, static_cast<uint64_t>(kFlows));
  EXPECT_EQ(fabric_->SlotState(*fabric_->SlotOf("one")).flows, static_cast<uint32_t>(kFlows));
  fabric_->ReleaseNetwork("one");
  while (!reaper.Step()) {
  }
  EXPECT_EQ(reaper.statistics().flows, 0u);
  EXPECT_EQ(reaper.statistics().reaped, static_cast<uint64_t>(kFlows));
}

TEST_F(TrafficTest, ATapThatIsLentAgainHearsItsFirstAnswer) {
  EchoServer server(world_->Socket(SOCK_DGRAM, kWorld, 9000));
  Frame frame;
  frame.source = Address("169.254.0.21");
  frame.target = Address(kWorld);
  frame.protocol = 17;
  frame.source_port = 4000;
  frame.target_port = 9000;
  for (int i = 0; i < 50; ++i) {
    {
      UniqueFd tap = Sandbox("one");
      ASSERT_TRUE(WriteFrame(tap.get(), frame.Build()));
      Bytes answer = ReadFrame(tap.get(), 10'000);
      ASSERT_EQ(Read(answer).target_port, 4000) << i;
    }
    // As it is once the kernel has found out that nobody has it open any more.
    std::string name = fabric_->TapName(*fabric_->SlotOf("one"));
    fabric_->ReleaseNetwork("one");
    SettleLink(name);
  }
}

// How many rules are in the kernel's table.
size_t RulesIn(int map) {
  size_t count = 0;
  bpf::rule_key key, next;
  const void* at = nullptr;
  for (; bpf_map_get_next_key(map, at, &next) == 0; at = &key, ++count) key = next;
  return count;
}

TEST_F(TrafficTest, RulesOfFormerPoliciesAreTakenOutInParts) {
  auto guest = Guest("one");
  EchoServer server(world_->Socket(SOCK_STREAM, kWorld, 80));
  int map = fabric_->programs().maps().rules;
  const std::vector<std::string> allow[] = {{"192.0.2.0/24", "198.51.100.0/24"}, {"192.0.2.0/24"}};
  for (int i = 0; i < 300; ++i) {
    ASSERT_TRUE(fabric_->EnsureNetwork("one", Lists(allow[i % 2], {"0.0.0.0/0"}, true)).ok());
  }
  // The limit is held without being asked for, and the rest waits.
  EXPECT_LE(RulesIn(map), 257u * 5 / 2 + 3);
  EXPECT_GT(RulesIn(map), 100u * 5 / 2);
  EXPECT_FALSE(fabric_->Tidy());  // what may still be judged by stays a while
  while (!fabric_->Tidy()) std::this_thread::yield();
  EXPECT_EQ(RulesIn(map), 2u);
  EXPECT_EQ(TryTcp(*guest, kWorld, 80), 0);
  EXPECT_EQ(TryTcp(*guest, kOther, 80), ECONNREFUSED);
}

}  // namespace
}  // namespace cube::net::testing
