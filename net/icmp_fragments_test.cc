#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "net/testing/program_fixture.h"

// Packets without ports of their own, by BPF_PROG_TEST_RUN: ICMP and fragments.
namespace cube::net::testing {
namespace {

class IcmpFragmentsTest : public ProgramFixture {
 protected:
  const uint32_t self_ = Address("203.0.113.1");
  const uint32_t guest_ = Address("169.254.0.21");
  const uint32_t world_ = Address(kWorld);
};

TEST_F(IcmpFragmentsTest, EchoAndItsAnswer) {
  Frame echo = Out(kIcmp, kWorld, 0, 77);
  echo.payload = Bytes(56, 'e');
  Outcome out = FromSandbox(echo.Build());
  EXPECT_TRUE(out.seen.valid);
  EXPECT_EQ(out.seen.source, self_);
  EXPECT_EQ(out.seen.icmp_type, 8);
  EXPECT_EQ(out.seen.payload, echo.payload);
  Frame reply = In(kIcmp, world_, out.seen.source_port, self_, 0);
  reply.icmp_type = 0;
  reply.payload = echo.payload;
  Outcome back = FromWorld(reply.Build());
  EXPECT_EQ(back.action, kRedirect);
  EXPECT_TRUE(back.seen.valid);
  EXPECT_EQ(back.seen.target, guest_);
  EXPECT_EQ(back.seen.source_port, 77);
  // An answer that the guest gives without having been asked; other types.
  for (uint8_t type : {0, 5, 9, 13, 17, 42}) {
    Frame other = Out(kIcmp, kWorld, 0, 78);
    other.icmp_type = type;
    Outcome refused = FromSandbox(other.Build());
    EXPECT_TRUE(refused.action == kShot || refused.seen.target == guest_) << +type;
  }
}

TEST_F(IcmpFragmentsTest, ErrorsFindTheFlowOfThePacketWithin) {
  for (uint8_t protocol : {kTcp, kUdp, kIcmp}) {
    Frame sent = Out(protocol, kWorld, 80, 4100);
    sent.payload = Bytes(64, 'p');
    Outcome out = FromSandbox(sent.Build());
    ASSERT_EQ(out.action, kRedirect);
    // By a router on the way.
    Frame error = In(kIcmp, Address("198.51.100.254"), 0, self_, 0);
    error.icmp_type = 3;
    error.icmp_code = 4;
    error.icmp_rest = 1280;
    error.payload.assign(out.frame.begin() + 14, out.frame.begin() + 14 + 20 + 8);
    Outcome back = FromWorld(error.Build());
    EXPECT_EQ(back.action, kRedirect) << +protocol;
    EXPECT_TRUE(back.seen.valid) << +protocol;
    EXPECT_EQ(back.seen.source, Address("198.51.100.254"));
    EXPECT_EQ(back.seen.target, guest_);
    EXPECT_EQ(back.seen.icmp_rest, 1280u);
    Seen within = ReadPacket(back.seen.payload, true);
    EXPECT_TRUE(within.valid);
    EXPECT_EQ(within.source, guest_);
    EXPECT_EQ(within.target, world_);
    if (protocol != kIcmp) {
      EXPECT_EQ(within.source_port, 4100);
      EXPECT_EQ(within.target_port, 80);
    } else {
      EXPECT_EQ(within.source_port, 4100);
      EXPECT_EQ(Get16(back.seen.payload, 24), 4100);
    }
    if (protocol == kUdp) {
      // Its checksum is that of the datagram as the guest sent it.
      Bytes original = sent.Packet();
      EXPECT_EQ(Get16(back.seen.payload, 26), Get16(original, 26));
    }
    // One that quotes what was never sent is the host's business.
    error.payload[20] ^= 1;
    error.payload[24] ^= 1;
    EXPECT_EQ(FromWorld(error.Build()).action, kOk);
  }
}

TEST_F(IcmpFragmentsTest, ErrorsOfTheGuests) {
  uint16_t port = FromSandbox(Out(kUdp, kWorld, 80, 4200).Build()).seen.source_port;
  Frame answer = In(kUdp, world_, 80, self_, port);
  answer.payload = Bytes(20, 'a');
  Outcome in = FromWorld(answer.Build());
  Frame error = Out(kIcmp, kWorld, 0, 0);
  error.icmp_type = 3;
  error.icmp_code = 3;
  error.payload.assign(in.frame.begin() + 14, in.frame.begin() + 14 + 28);
  Outcome out = FromSandbox(error.Build());
  EXPECT_EQ(out.action, kRedirect);
  EXPECT_TRUE(out.seen.valid);
  EXPECT_EQ(out.seen.source, self_);
  Seen within = ReadPacket(out.seen.payload, true);
  EXPECT_TRUE(within.valid);
  EXPECT_EQ(within.target, self_);
  EXPECT_EQ(within.target_port, port);
  // About what it was not sent, or to somebody else: no.
  Frame forged = error;
  forged.payload[20] ^= 0x40;
  EXPECT_EQ(FromSandbox(forged.Build()).action, kShot);
  forged = error;
  forged.target = Address("192.0.2.99");
  EXPECT_EQ(FromSandbox(forged.Build()).action, kShot);
  forged = error;
  forged.payload.resize(27);
  EXPECT_EQ(FromSandbox(forged.Build()).action, kShot);
}

TEST_F(IcmpFragmentsTest, Fragments) {
  Frame first = Out(kUdp, kWorld, 80, 4300);
  first.fragment = 0x2000;
  first.payload = Bytes(64, 'f');
  Outcome one = FromSandbox(first.Build());
  EXPECT_EQ(one.action, kRedirect);
  EXPECT_EQ(one.seen.source, self_);
  EXPECT_GE(one.seen.source_port, 20000);
  Frame second = Out(kUdp, kWorld, 0);
  second.raw = true;
  second.fragment = 9;
  second.payload = Bytes(32, 'g');
  Outcome two = FromSandbox(second.Build());
  EXPECT_EQ(two.action, kRedirect);
  EXPECT_TRUE(two.seen.valid);
  EXPECT_EQ(two.seen.source, self_);
  EXPECT_EQ(two.seen.identifier, one.seen.identifier);
  EXPECT_EQ(two.seen.fragment, 9);
  EXPECT_EQ(two.seen.payload, second.payload);
  // The same from the other sandbox is another datagram.
  Outcome other = FromSandbox(first.Build(), 2);
  EXPECT_NE(other.seen.identifier, one.seen.identifier);
  // Over the first one, which says what it is.
  for (uint16_t at : {1, 2, 8}) {
    second.fragment = at;
    EXPECT_TRUE(Gives(bpf::REASON_FRAGMENT,
                      [&] { EXPECT_EQ(FromSandbox(second.Build()).action, kShot) << at; }));
  }
  second.fragment = 9;
  EXPECT_EQ(FromSandbox(second.Build()).action, kRedirect);
  // Without its first one.
  second.identifier = 99;
  EXPECT_TRUE(
      Gives(bpf::REASON_FRAGMENT, [&] { EXPECT_EQ(FromSandbox(second.Build()).action, kShot); }));
}

TEST_F(IcmpFragmentsTest, FragmentsThatAreMadeToDeceive) {
  struct {
    const char* what;
    uint8_t protocol;
    uint16_t fragment;
    size_t size;
  } const kCases[] = {
      {"over TCP's ports", kTcp, 1, 32},          {"over TCP's flags", kTcp, 2, 32},
      {"beyond 64 KiB", kUdp, 0x1fff, 64},        {"of nothing", kUdp, 20, 0},
      {"a middle of 9 bytes", kUdp, 0x2003, 9},   {"a first one without ports", kUdp, 0x2000, 0},
      {"half of TCP's header", kTcp, 0x2000, 16},
  };
  Frame first = Out(kTcp, kWorld, 80, 4400);
  first.fragment = 0x2000;
  first.payload = Bytes(68, 'f');
  ASSERT_EQ(FromSandbox(first.Build()).seen.source, self_);
  for (const auto& each : kCases) {
    Frame frame = Out(each.protocol, kWorld, 80, 4400);
    frame.raw = true;
    frame.fragment = each.fragment;
    frame.payload = Bytes(each.size, 0);
    Bytes bytes = frame.Build();
    EXPECT_EQ(FromSandbox(bytes).action, kShot) << each.what;
  }
}

TEST_F(IcmpFragmentsTest, FragmentsFromOutside) {
  uint16_t port = FromSandbox(Out(kUdp, kWorld, 80, 4500).Build()).seen.source_port;
  Frame first = In(kUdp, world_, 80, self_, port);
  first.fragment = 0x2000;
  first.payload = Bytes(64, 'f');
  Outcome one = FromWorld(first.Build());
  EXPECT_EQ(one.action, kRedirect);
  EXPECT_EQ(one.seen.target_port, 4500);
  Frame second = In(kUdp, world_, 0, self_, 0);
  second.raw = true;
  second.fragment = 9;
  second.payload = Bytes(32, 'g');
  Outcome two = FromWorld(second.Build());
  EXPECT_EQ(two.action, kRedirect);
  EXPECT_EQ(two.seen.target, guest_);
  EXPECT_EQ(two.seen.identifier, one.seen.identifier);
  second.fragment = 8;
  EXPECT_EQ(FromWorld(second.Build()).action, kOk);
  second.fragment = 9;
  second.identifier = 1234;
  EXPECT_EQ(FromWorld(second.Build()).action, kOk);  // the host's
}

}  // namespace
}  // namespace cube::net::testing
