#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "net/testing/program_fixture.h"

// Fragments of IPv6 (RFC 8200 section 4.5), by BPF_PROG_TEST_RUN.
namespace cube::net::testing {
namespace {

constexpr size_t kPart = 1232;

class Ipv6FragmentsTest : public ProgramFixture {
 protected:
  // A datagram with a payload of 4,000 bytes.
  static Frame6 Long(Frame6 frame) {
    for (size_t i = 0; i < 4000; ++i) frame.payload.push_back(static_cast<uint8_t>(i * 7));
    return frame;
  }
  static Frame6 LongOut(uint8_t protocol, uint16_t from = 4000) {
    return Long(Out6(protocol, kWorld6, 80, from));
  }
  // What becomes of its parts, each of which is let through by `run`.
  template <typename Run>
  static Seen6 Whole(const Frame6& frame, const Run& run, uint32_t identifier = 7) {
    std::vector<Bytes> sent, parts;
    for (size_t at = 0; at < 4008; at += kPart) {
      sent.push_back(frame.Part(at, kPart, identifier).Build());
      Outcome outcome = run(sent.back());
      EXPECT_EQ(outcome.action, kRedirect) << at;
      EXPECT_EQ(outcome.seen6.hops, frame.hops - 1);
      parts.push_back(outcome.frame);
    }
    Bytes packet = Assemble6(parts);
    EXPECT_FALSE(packet.empty());
    return ReadPacket6(packet);
  }
  Seen6 WholeOut(const Frame6& frame, uint32_t number = 1) {
    return Whole(frame, [&](const Bytes& part) { return FromSandbox(part, number); });
  }
  Seen6 WholeIn(const Frame6& frame) {
    return Whole(frame, [&](const Bytes& part) { return FromWorld(part); });
  }
  uint32_t IdentifierOf(const Frame6& part, uint32_t number = 1) {
    Outcome outcome = FromSandbox(part.Build(), number);
    EXPECT_EQ(outcome.action, kRedirect);
    return outcome.seen6.identifier;
  }
  void ExpectRefused(const Bytes& frame, bpf::reason reason, const std::string& what) {
    EXPECT_TRUE(Gives(reason, [&] { EXPECT_EQ(FromSandbox(frame).action, kShot) << what; }))
        << what;
  }
};

TEST_F(Ipv6FragmentsTest, ThereAndBackAgain) {
  for (uint8_t protocol : {kTcp, kUdp, kIcmp6}) {
    Frame6 frame = LongOut(protocol);
    Seen6 out = WholeOut(frame);
    EXPECT_TRUE(out.valid) << +protocol;
    EXPECT_EQ(out.source, Address6(kSelf6));
    EXPECT_EQ(out.target, Address6(kWorld6));
    EXPECT_EQ(out.payload, frame.payload);
    EXPECT_GE(out.source_port, 20000);
    EXPECT_LE(out.source_port, 29999);
    Frame6 answer = Long(In6(protocol, kWorld6, 80, out.source_port));
    answer.flags = kSynAck;
    answer.icmp_type = 129;
    if (protocol == kIcmp6) answer.source_port = out.source_port;
    Seen6 back = WholeIn(answer);
    EXPECT_TRUE(back.valid) << +protocol;
    EXPECT_EQ(back.source, Address6(kWorld6));
    EXPECT_EQ(back.target, Address6(kGuest6));
    EXPECT_EQ(protocol == kIcmp6 ? back.source_port : back.target_port, 4000);
    EXPECT_EQ(back.payload, frame.payload);
  }
}

TEST_F(Ipv6FragmentsTest, IdentifiersAreTheNodes) {
  Frame6 frame = LongOut(kUdp);
  uint32_t one = IdentifierOf(frame.Part(0, kPart));
  uint32_t two = IdentifierOf(frame.Part(0, kPart), 2);
  EXPECT_NE(one, two);
  EXPECT_EQ(IdentifierOf(frame.Part(kPart, kPart)), one);
  EXPECT_EQ(IdentifierOf(frame.Part(kPart, kPart), 2), two);
  // Another datagram of the same identifier is another.
  uint32_t again = IdentifierOf(frame.Part(0, kPart));
  EXPECT_NE(again, one);
  EXPECT_EQ(IdentifierOf(frame.Part(kPart, kPart)), again);
}

TEST_F(Ipv6FragmentsTest, MappedPortsAndTheHost) {
  MapPort(kUdp, 8053, 2, 53);
  Seen6 in = WholeIn(Long(In6(kUdp, kWorld6, 55555, 8053)));
  EXPECT_TRUE(in.valid);
  EXPECT_EQ(in.source, Address6(kWorld6));
  EXPECT_EQ(in.target, Address6(kGuest6));
  EXPECT_EQ(in.target_port, 53);
  Frame6 answer = Long(Out6(kUdp, kWorld6, 55555, 53));
  EXPECT_EQ(WholeOut(answer, 2).source_port, 8053);
  // The host's.
  Frame6 call = Long(In6(kUdp, kHost6, 40000, 8000));
  call.target = Address6(kSlot6);
  auto from_host = [&](const Bytes& part) { return FromHost(part); };
  Seen6 heard = Whole(call, from_host);
  EXPECT_TRUE(heard.valid);
  EXPECT_EQ(heard.source, Address6(kGateway6));
  EXPECT_EQ(heard.target, Address6(kGuest6));
  Seen6 said = WholeOut(Long(Out6(kUdp, kGateway6, 40000, 8000)));
  EXPECT_TRUE(said.valid);
  EXPECT_EQ(said.source, Address6(kSlot6));
  EXPECT_EQ(said.target, Address6(kHost6));
  // Others are not the host, and what has no first one is nobody's.
  Frame6 forwarded = call;
  forwarded.source = Address6(kWorld6);
  EXPECT_EQ(FromHost(forwarded.Part(0, kPart).Build()).action, kShot);
  EXPECT_EQ(FromHost(call.Part(kPart, kPart, 99).Build()).action, kShot);
}

TEST_F(Ipv6FragmentsTest, WithoutTheFirstOne) {
  Frame6 frame = LongOut(kUdp), other = frame;
  Bytes later = frame.Part(kPart, kPart).Build();
  ExpectRefused(frame.Part(kPart, kPart, 99).Build(), bpf::REASON_FRAGMENT, "before it");
  IdentifierOf(frame.Part(0, kPart));
  EXPECT_EQ(FromSandbox(later).action, kRedirect);
  ExpectRefused(frame.Part(kPart, kPart, 8).Build(), bpf::REASON_FRAGMENT, "of another");
  other.target = Address6("2001:db8:80::81");
  ExpectRefused(other.Part(kPart, kPart).Build(), bpf::REASON_FRAGMENT, "to another");
  other = LongOut(kIcmp6);
  ExpectRefused(other.Part(kPart, kPart).Build(), bpf::REASON_FRAGMENT, "of another protocol");
  EXPECT_TRUE(Gives(bpf::REASON_FRAGMENT,
                    [&] { EXPECT_EQ(FromSandbox(later, 2).action, kShot) << "another's"; }));
  // A policy is in force from the next packet on.
  SetPolicy(1, Policy());
  ExpectRefused(later, bpf::REASON_FRAGMENT, "of another policy");
  // Those from outside are the host's, untouched.
  uint16_t port = FromSandbox(Out6(kUdp, kWorld6, 80, 4100).Build()).seen6.source_port;
  Frame6 answer = Long(In6(kUdp, kWorld6, 80, port));
  Bytes alone = answer.Part(kPart, kPart).Build();
  Outcome outcome = FromWorld(alone);
  EXPECT_EQ(outcome.action, kOk);
  EXPECT_EQ(outcome.frame, alone);
  EXPECT_EQ(FromWorld(answer.Part(0, kPart).Build()).action, kRedirect);
  EXPECT_EQ(FromWorld(alone).action, kRedirect);
  slot(1)->epoch = ++generation_;
  EXPECT_EQ(FromWorld(alone).action, kOk);
}

TEST_F(Ipv6FragmentsTest, NothingLiesOverTheFirstOne) {
  for (uint8_t protocol : {kTcp, kUdp, kIcmp6}) {
    Frame6 frame = LongOut(protocol, 4200);
    IdentifierOf(frame.Part(0, kPart));
    for (size_t at : {8, 16, 24, 32, 640, 1224}) {
      ExpectRefused(frame.Part(at, kPart).Build(), bpf::REASON_FRAGMENT, Format("at %zu", at));
      ExpectRefused(frame.Part(at, 8).Build(), bpf::REASON_FRAGMENT, Format("at %zu", at));
    }
    EXPECT_EQ(FromSandbox(frame.Part(kPart, kPart).Build()).action, kRedirect);
  }
  // From outside likewise.
  uint16_t port = FromSandbox(Out6(kUdp, kWorld6, 80, 4201).Build()).seen6.source_port;
  Frame6 answer = Long(In6(kUdp, kWorld6, 80, port));
  EXPECT_EQ(FromWorld(answer.Part(0, kPart).Build()).action, kRedirect);
  for (size_t at : {8, 640, 1224}) {
    EXPECT_EQ(FromWorld(answer.Part(at, kPart).Build()).action, kOk) << at;
  }
  // A first one with other ports is another datagram, and judged by itself.
  SetPolicy(1, {"[::/0]:80"}, {"::/0"}, false);
  Frame6 open = LongOut(kUdp, 4202), closed = Long(Out6(kUdp, kWorld6, 22, 4202));
  uint32_t before = IdentifierOf(open.Part(0, kPart));
  EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] { FromSandbox(closed.Part(0, kPart).Build()); }));
  EXPECT_EQ(IdentifierOf(open.Part(kPart, kPart)), before);
}

TEST_F(Ipv6FragmentsTest, FragmentsThatAreMadeToDeceive) {
  Frame6 tcp = LongOut(kTcp, 4300), udp = LongOut(kUdp, 4300);
  auto of = [](const Frame6& whole, size_t size, uint16_t fragment, uint8_t next = 0) {
    Frame6 part = whole.Part(0, size);
    part.extension[2] = static_cast<uint8_t>(fragment >> 8);
    part.extension[3] = static_cast<uint8_t>(fragment);
    if (next != 0) part.extension[0] = next;
    return part.Build();
  };
  IdentifierOf(udp.Part(0, kPart));
  IdentifierOf(tcp.Part(0, kPart));
  struct {
    const char* what;
    bpf::reason reason;
    Bytes frame;
  } const kCases[] = {
      {"beyond 64 KiB", bpf::REASON_FRAGMENT, of(udp, 64, 0xffc8)},
      {"of nothing", bpf::REASON_FRAGMENT, of(udp, 0, 2000)},
      {"of nothing, the first", bpf::REASON_FRAGMENT, of(udp, 0, 1)},
      {"a middle of 9 bytes", bpf::REASON_FRAGMENT, of(udp, 9, 2001)},
      {"a first one of 9 bytes", bpf::REASON_FRAGMENT, of(udp, 9, 1)},
      {"half of TCP's header", bpf::REASON_MALFORMED, of(tcp, 16, 1)},
      {"half of UDP's, and no more", bpf::REASON_MALFORMED, of(udp, 4, 0)},
      {"another fragment's header", bpf::REASON_FRAGMENT, of(udp, 64, 1, 44)},
      {"another one's, later", bpf::REASON_FRAGMENT, of(udp, 64, 2000, 44)},
      {"destination options", bpf::REASON_OPTIONS, of(udp, 64, 1, 60)},
      {"routing", bpf::REASON_OPTIONS, of(udp, 64, 1, 43)},
      {"ESP", bpf::REASON_PROTOCOL, of(udp, 64, 1, 50)},
      {"ESP, later", bpf::REASON_PROTOCOL, of(udp, 64, 2000, 50)},
      {"IPv6 within", bpf::REASON_PROTOCOL, of(udp, 64, 1, 41)},
      {"nothing behind it", bpf::REASON_PROTOCOL, of(udp, 64, 1, 59)},
  };
  for (const auto& each : kCases) ExpectRefused(each.frame, each.reason, each.what);
  struct {
    const char* what;
    void (*change)(Bytes*);
  } const kChanges[] = {
      {"longer than the frame", [](Bytes* f) { (*f)[18] = 0x10; }},
      {"shorter than its header", [](Bytes* f) { (*f)[18] = 0, (*f)[19] = 7; }},
      {"a jumbogram", [](Bytes* f) { (*f)[18] = (*f)[19] = 0; }},
      {"cut off within the header", [](Bytes* f) { f->resize(60); }},
      {"version 4", [](Bytes* f) { (*f)[14] = 0x40; }},
      {"without a checksum", [](Bytes* f) { (*f)[68] = (*f)[69] = 0; }},
  };
  for (const auto& each : kChanges) {
    Bytes frame = udp.Part(0, kPart).Build();
    each.change(&frame);
    if (frame.size() == 60) frame[18] = frame[19] = 0, frame[19] = 6;
    EXPECT_TRUE(Gives(bpf::REASON_MALFORMED, [&] {
      EXPECT_EQ(FromSandbox(frame).action, kShot) << each.what;
    })) << each.what;
  }
  Frame6 forged = udp;
  forged.source = Address6(kGateway6);
  ExpectRefused(forged.Part(0, kPart).Build(), bpf::REASON_SOURCE, "in the gateway's name");
  ExpectRefused(forged.Part(kPart, kPart).Build(), bpf::REASON_SOURCE, "later, in its name");
  // Discovery (RFC 6980), and errors, in parts.
  Frame6 ask = Solicitation(kGuest6, kGateway6);
  std::copy(udp.target_mac, udp.target_mac + 6, ask.target_mac);
  ExpectRefused(ask.Part(0, 16).Build(), bpf::REASON_PROTOCOL, "discovery");
  Frame6 error = LongOut(kIcmp6);
  error.icmp_type = 1;
  ExpectRefused(error.Part(0, kPart).Build(), bpf::REASON_MALFORMED, "an error");
  // A device that cuts it up would make of each part some more.
  EXPECT_TRUE(Gives(bpf::REASON_MALFORMED, [&] {
    Bytes frame = udp.Part(0, kPart).Build();
    EXPECT_EQ(Run(programs_->from_sandbox(), frame, slot(1)->ifindex, 500).action, kShot);
  }));
}

TEST_F(Ipv6FragmentsTest, OneThatIsAllThereIs) {
  for (uint8_t protocol : {kTcp, kUdp, kIcmp6}) {
    Frame6 frame = Out6(protocol, kWorld6, 80, 4400);
    frame.payload = Bytes(99, 'a');
    Outcome out = FromSandbox(frame.Part(0, 4000).Build());
    ASSERT_EQ(out.action, kRedirect);
    EXPECT_TRUE(out.seen6.valid) << +protocol;
    EXPECT_EQ(out.seen6.fragment, 0);
    EXPECT_NE(out.seen6.identifier, 7u);
    EXPECT_EQ(out.seen6.source, Address6(kSelf6));
    EXPECT_EQ(out.seen6.payload, frame.payload);
    // It has no others (RFC 6946).
    Bytes later = LongOut(protocol, 4400).Part(kPart, kPart).Build();
    ExpectRefused(later, bpf::REASON_FRAGMENT, "after it");
  }
  // Nor does it end another datagram's.
  Frame6 frame = LongOut(kUdp, 4401), small = Out6(kUdp, kWorld6, 80, 4401);
  uint32_t identifier = IdentifierOf(frame.Part(0, kPart));
  EXPECT_NE(IdentifierOf(small.Part(0, 4000)), identifier);
  EXPECT_EQ(IdentifierOf(frame.Part(kPart, kPart)), identifier);
}

TEST_F(Ipv6FragmentsTest, RefusalsAreAnswered) {
  SetPolicy(1, {}, {"::/0"}, true);
  Seen6 quoted = ExpectProhibited6(FromSandbox(LongOut(kUdp).Part(0, kPart).Build()));
  EXPECT_EQ(quoted.identifier, 7u);
  EXPECT_EQ(quoted.target, Address6(kWorld6));
  EXPECT_EQ(quoted.target_port, 80);
  // A part of a reset would be none; a whole one is.
  ExpectRefused(LongOut(kTcp).Part(0, kPart).Build(), bpf::REASON_POLICY, "TCP");
  Outcome reset = FromSandbox(Out6(kTcp, kWorld6, 80).Part(0, 4000).Build());
  EXPECT_EQ(reset.action, kRedirect);
  EXPECT_TRUE(reset.seen6.valid);
  EXPECT_EQ(reset.seen6.flags & kRst, kRst);
  SetPolicy(1, Policy());
  Frame6 last = LongOut(kUdp);
  last.hops = 1;
  EXPECT_EQ(FromSandbox(last.Part(0, kPart).Build()).seen6.icmp_type, 3);
  EXPECT_EQ(FromSandbox(last.Part(kPart, kPart).Build()).action, kShot);
  // Where a sandbox has no rules of it.
  slot(1)->policy &= ~(uint64_t{bpf::SLOT_IPV6} << 32);
  EXPECT_TRUE(Gives(bpf::REASON_IPV6, [&] { FromSandbox(LongOut(kUdp).Part(0, kPart).Build()); }));
}

TEST_F(Ipv6FragmentsTest, ErrorsAboutThem) {
  for (uint8_t protocol : {kTcp, kUdp, kIcmp6}) {
    Frame6 frame = LongOut(protocol, 4500);
    Outcome out = FromSandbox(frame.Part(0, kPart).Build());
    Outcome later = FromSandbox(frame.Part(kPart, kPart).Build());
    Frame6 error = In6(kIcmp6, "2001:db8:99::1", 0, 0);
    error.icmp_type = 2;
    error.icmp_rest = 1280;
    for (size_t size : {56, 57, 200}) {
      error.payload.assign(out.frame.begin() + 14,
                           out.frame.begin() + 14 + static_cast<long>(size));
      Outcome back = FromWorld(error.Build());
      ASSERT_EQ(back.action, kRedirect) << +protocol;
      EXPECT_TRUE(back.seen6.valid) << +protocol;
      EXPECT_EQ(back.seen6.target, Address6(kGuest6));
      EXPECT_EQ(back.seen6.icmp_rest, 1280u);
      Seen6 quoted = ReadPacket6(back.seen6.payload, true);
      EXPECT_EQ(quoted.source, Address6(kGuest6));
      EXPECT_EQ(quoted.target, Address6(kWorld6));
      EXPECT_EQ(quoted.source_port, 4500);
      if (protocol == kUdp) {
        // Its checksum is that of the datagram as the guest sent it.
        Bytes original = frame.Packet();
        EXPECT_EQ(Get16(back.seen6.payload, 54), Get16(original, 46));
      }
    }
    // One without ports, one about a part that has none, and one with yet another header.
    error.payload.resize(55);
    EXPECT_EQ(FromWorld(error.Build()).action, kOk);
    error.payload.assign(later.frame.begin() + 14, later.frame.begin() + 14 + 200);
    EXPECT_EQ(FromWorld(error.Build()).action, kOk);
    error.payload.assign(out.frame.begin() + 14, out.frame.begin() + 14 + 200);
    error.payload[40] = 44;
    EXPECT_EQ(FromWorld(error.Build()).action, kOk);
  }
  // The guest's own, about what has come to it.
  uint16_t port = FromSandbox(Out6(kUdp, kWorld6, 80, 4501).Build()).seen6.source_port;
  Outcome in = FromWorld(Long(In6(kUdp, kWorld6, 80, port)).Part(0, kPart).Build());
  Frame6 error = Out6(kIcmp6, kWorld6, 0);
  error.icmp_type = 3;
  error.icmp_code = 1;
  error.payload.assign(in.frame.begin() + 14, in.frame.begin() + 14 + 200);
  Outcome told = FromSandbox(error.Build());
  ASSERT_EQ(told.action, kRedirect);
  EXPECT_TRUE(told.seen6.valid);
  EXPECT_EQ(ReadPacket6(told.seen6.payload, true).target, Address6(kSelf6));
  EXPECT_EQ(ReadPacket6(told.seen6.payload, true).target_port, port);
  error.payload[42] = 0x10;
  ExpectRefused(error.Build(), bpf::REASON_FRAGMENT, "about a later one");
  error.payload[42] = 0;
  error.payload[40] = 44;
  ExpectRefused(error.Build(), bpf::REASON_FRAGMENT, "a header more");
}

}  // namespace
}  // namespace cube::net::testing
