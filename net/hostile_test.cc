#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>

#include <cstring>
#include <random>

#include "net/testing/fabric_fixture.h"

// A guest that writes whatever it likes to its TAP: what comes out elsewhere.
namespace cube::net::testing {
namespace {

constexpr uint8_t kGuestMac[6] = {0x02, 0xcb, 0, 0, 0, 0x15};

class HostileTest : public FabricFixture {
 protected:
  void SetUp() override {
    FabricFixture::SetUp();
    tap_ = Sandbox("one");
    neighbour_ = Sandbox("two");
    // The neighbours on the wire are known before anything is looked at.
    server_ = std::make_unique<EchoServer>(world_->Socket(SOCK_DGRAM, kWorld, 9000));
    ASSERT_TRUE(Probe());
  }
  void TearDown() override {
    server_.reset();
    FabricFixture::TearDown();
  }

  static Frame Datagram(const char* target, uint16_t port, uint16_t from = 4000) {
    Frame frame;
    frame.source = Address("169.254.0.21");
    frame.target = Address(target);
    frame.protocol = kUdp;
    frame.source_port = from;
    frame.target_port = port;
    frame.payload = {'p', 'r', 'o', 'b', 'e'};
    return frame;
  }
  // A datagram there and back: everything that was written before it has been dealt with.
  bool Probe() {
    if (!WriteFrame(tap_.get(), Datagram(kWorld, 9000, 1999).Build())) return false;
    for (;;) {
      Bytes answer = ReadFrame(tap_.get(), 10'000);
      if (answer.empty()) return false;
      Seen seen = Read(answer);
      if (seen.protocol == kUdp && seen.target_port == 1999) return true;
    }
  }

  UniqueFd tap_, neighbour_;
  std::unique_ptr<EchoServer> server_;
};

TEST_F(HostileTest, NothingForgedGetsOut) {
  FrameListener world(*world_, "world"), inside(*host_, "t-host"), other(*host_, "t-peer");
  std::vector<Bytes> frames;
  for (const char* source : {"203.0.113.1", "203.0.113.2", "192.0.2.80", "198.18.0.3", "10.0.0.1",
                             "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1"}) {
    Frame frame = Datagram(kWorld, 9000);
    frame.source = Address(source);
    frames.push_back(frame.Build());
  }
  for (uint16_t operation : {1, 2}) {
    for (const char* sender : {"203.0.113.2", "169.254.0.22", "198.18.0.1"}) {
      frames.push_back(Arp(operation, kGuestMac, Address(sender), Address("203.0.113.1")));
    }
  }
  for (uint16_t tag : {0x8100, 0x88a8, 0x9100}) {
    Bytes frame = Datagram(kWorld, 9000).Build();
    Bytes header = {static_cast<uint8_t>(tag >> 8), static_cast<uint8_t>(tag), 0, 1};
    frame.insert(frame.begin() + 12, header.begin(), header.end());
    frames.push_back(frame);
    frame.insert(frame.begin() + 12, header.begin(), header.end());
    frames.push_back(frame);
  }
  // IPv6: neighbour and router discovery, and a datagram to all.
  for (uint8_t type : {133, 134, 135, 136}) {
    Bytes frame = {0x33, 0x33, 0,    0,    0, 1, 2, 0xcb, 0, 0,  0,
                   0x15, 0x86, 0xdd, 0x60, 0, 0, 0, 0,    8, 58, 255};
    frame.resize(22 + 32, 0xfe);
    frame.insert(frame.end(), {type, 0, 0, 0, 0, 0, 0, 0});
    frames.push_back(frame);
  }
  for (const char* target : {"203.0.113.1", "198.18.0.1", "198.18.0.3", "169.254.169.254",
                             "127.0.0.1", "10.0.0.1", "255.255.255.255"}) {
    frames.push_back(Datagram(target, 9000).Build());
  }
  Frame routed = Datagram(kWorld, 9000);
  routed.options = {131, 7, 4, 203, 0, 113, 9, 0};
  frames.push_back(routed.Build());
  for (const Bytes& frame : frames) ASSERT_TRUE(WriteFrame(tap_.get(), frame));
  ASSERT_TRUE(Probe());
  int seen_out = 0;
  for (Bytes frame = world.Next(); !frame.empty(); frame = world.Next()) {
    if (Get16(frame, 12) != 0x0800) continue;  // the hosts' own ARP
    Seen seen = Read(frame);
    EXPECT_TRUE(seen.source == Address(kHost) || seen.source == Address(kWorld))
        << inet_ntoa({seen.source});
    EXPECT_TRUE(seen.source_port == 9000 || seen.target_port == 9000);
    ++seen_out;
  }
  EXPECT_EQ(seen_out, 2);  // the probe, and its answer
  EXPECT_TRUE(inside.Next().empty());
  EXPECT_TRUE(other.Next().empty());
  EXPECT_TRUE(ReadFrame(neighbour_.get(), 0).empty());
}

TEST_F(HostileTest, FramesOfAllLengths) {
  Bytes whole = Datagram(kWorld, 9000).Build();
  uint64_t served = server_->served();
  for (size_t size = 14; size < whole.size(); ++size) {
    Bytes cut(whole.begin(), whole.begin() + static_cast<long>(size));
    ASSERT_TRUE(WriteFrame(tap_.get(), cut));
  }
  ASSERT_TRUE(Probe());
  EXPECT_EQ(server_->served(), served + 1);
}

TEST_F(HostileTest, RandomFrames) {
  FrameListener world(*world_, "world"), inside(*host_, "t-peer");
  std::mt19937 random(20260726);
  const Bytes seeds[] = {Datagram(kWorld, 9000).Build(),
                         [] {
                           Frame frame = Datagram(kWorld, 80);
                           frame.protocol = kTcp;
                           return frame.Build();
                         }(),
                         [] {
                           Frame frame = Datagram(kWorld, 0);
                           frame.protocol = 1;
                           frame.payload = Bytes(60, 0x45);
                           frame.icmp_type = 3;
                           return frame.Build();
                         }()};
  for (int i = 0; i < 30'000; ++i) {
    Bytes frame = seeds[random() % 3];
    for (uint32_t n = random() % 4; n > 0; --n) {
      // Half of them keep their Ethernet header.
      size_t from = random() % 2 == 0 ? 0 : 14;
      frame[from + random() % (frame.size() - from)] = static_cast<uint8_t>(random());
    }
    if (random() % 8 == 0) frame.resize(14 + random() % 200);
    WriteFrame(tap_.get(), frame);
    if (i % 500 == 0) {
      ASSERT_TRUE(Probe()) << i;
    }
  }
  ASSERT_TRUE(Probe());
  for (Bytes frame = world.Next(); !frame.empty(); frame = world.Next()) {
    // The hosts have ARP and IPv6 of their own.
    EXPECT_NE(memcmp(&frame[6], kGuestMac, 6), 0);
    if (Get16(frame, 12) == 0x0806 || Get16(frame, 12) == 0x86dd) continue;
    ASSERT_EQ(Get16(frame, 12), 0x0800);
    bool is_own = frame[26] == 203 || memcmp(&frame[26], &Bytes{192, 0, 2, 80}[0], 4) == 0;
    EXPECT_TRUE(is_own) << +frame[26] << "." << +frame[27] << "." << +frame[28];
  }
  EXPECT_TRUE(inside.Next().empty());
  EXPECT_TRUE(ReadFrame(neighbour_.get(), 0).empty());
}

TEST_F(HostileTest, FragmentsThatOverlap) {
  // The second one would put another port over the first one's, after that was let through.
  ASSERT_TRUE(fabric_->EnsureNetwork("one", Lists({"192.0.2.80:9000"}, {"0.0.0.0/0"}, true)).ok());
  EchoServer secret(world_->Socket(SOCK_DGRAM, kWorld, 9001));
  Frame first = Datagram(kWorld, 9000);
  first.fragment = 0x2000;
  first.payload = Bytes(8, 'a');
  Frame again = Datagram(kWorld, 9001);  // a second first one
  again.fragment = 0x2000;
  again.payload = Bytes(8, 'b');
  Frame last = Datagram(kWorld, 0);
  last.raw = true;
  last.fragment = 1;
  last.payload = Bytes(64, 'c');
  for (const Frame* frame : {&first, &again, &last}) {
    ASSERT_TRUE(WriteFrame(tap_.get(), frame->Build()));
  }
  ASSERT_TRUE(Probe());
  EXPECT_EQ(secret.served(), 0u);
}

TEST_F(HostileTest, DnsElsewhereIsAsAnythingElse) {
  ASSERT_TRUE(fabric_->EnsureNetwork("one", Lists({"*.example.com"}, {"0.0.0.0/0"}, true)).ok());
  EchoServer dns(world_->Socket(SOCK_DGRAM, kWorld, 53));
  EchoServer dns_tcp(world_->Socket(SOCK_STREAM, kWorld, 53));
  EchoServer dot(world_->Socket(SOCK_STREAM, kWorld, 853));
  EchoServer https(world_->Socket(SOCK_STREAM, kWorld, 443));
  EchoServer quic(world_->Socket(SOCK_DGRAM, kWorld, 443));
  for (uint16_t port : {53, 443, 5353}) {
    ASSERT_TRUE(WriteFrame(tap_.get(), Datagram(kWorld, port).Build()));
  }
  for (uint16_t port : {53, 853, 443, 80}) {
    Frame syn = Datagram(kWorld, port);
    syn.protocol = kTcp;
    syn.payload.clear();
    ASSERT_TRUE(WriteFrame(tap_.get(), syn.Build()));
  }
  for (int refused = 0; refused < 7;) {
    Bytes frame = ReadFrame(tap_.get(), 10'000);
    ASSERT_FALSE(frame.empty()) << refused;
    Seen seen = Read(frame);
    EXPECT_TRUE((seen.protocol == kTcp && (seen.flags & 4) != 0) || seen.icmp_code == 13);
    ++refused;
  }
  EXPECT_EQ(dns.served() + dns_tcp.served() + dot.served() + https.served() + quic.served(), 0u);
}

TEST_F(HostileTest, AFloodOfFlowsIsTheFloodersOwn) {
  // More ports of more targets than a sandbox may have flows.
  for (uint32_t i = 0; i < 20'000; ++i) {
    Frame frame = Datagram(kOther, static_cast<uint16_t>(1 + i / 16384), 0);
    frame.source_port = static_cast<uint16_t>(1024 + i % 16384);
    ASSERT_TRUE(WriteFrame(tap_.get(), frame.Build()));
  }
  EXPECT_LE(fabric_->SlotState(*fabric_->SlotOf("one")).flows, 16384u);
  ASSERT_TRUE(WriteFrame(neighbour_.get(), Datagram(kWorld, 9000, 77).Build()));
  Bytes answer = ReadFrame(neighbour_.get(), 10'000);
  EXPECT_EQ(Read(answer).target_port, 77);
}

}  // namespace
}  // namespace cube::net::testing
