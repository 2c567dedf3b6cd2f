#include "net/programs.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "net/testing/program_fixture.h"

// What each program makes of a frame, by BPF_PROG_TEST_RUN: who may send what.
namespace cube::net::testing {
namespace {

using ProgramsTest = ProgramFixture;

TEST_F(ProgramsTest, FramesFromElsewhereAreRefused) {
  Frame good = Out(kUdp, kWorld, 53);
  EXPECT_EQ(FromSandbox(good.Build()).action, kRedirect);
  struct {
    const char* what;
    void (*change)(Frame*);
  } const kCases[] = {
      {"another MAC", [](Frame* f) { f->source_mac[5] = 0x99; }},
      {"the gateway's MAC", [](Frame* f) { f->source_mac[5] = 0x16; }},
      {"to another MAC", [](Frame* f) { f->target_mac[5] = 0x99; }},
      {"to all", [](Frame* f) { memset(f->target_mac, 0xff, 6); }},
      {"to a group", [](Frame* f) { f->target_mac[0] = 1; }},
      {"another address", [](Frame* f) { f->source = Address("169.254.0.20"); }},
      {"the gateway's address", [](Frame* f) { f->source = Address("169.254.0.22"); }},
      {"a public address", [](Frame* f) { f->source = Address("203.0.113.1"); }},
      {"no address", [](Frame* f) { f->source = 0; }},
      {"loopback", [](Frame* f) { f->source = Address("127.0.0.1"); }},
  };
  for (const auto& each : kCases) {
    Frame frame = good;
    each.change(&frame);
    EXPECT_TRUE(Gives(bpf::REASON_SOURCE, [&] {
      EXPECT_EQ(FromSandbox(frame.Build()).action, kShot) << each.what;
    })) << each.what;
  }
}

TEST_F(ProgramsTest, AnInterfaceOfNoSandboxIsMute) {
  Bytes frame = Out(kUdp, kWorld, 53).Build();
  EXPECT_TRUE(Gives(bpf::REASON_NO_SLOT, [&] {
    EXPECT_EQ(Run(programs_->from_sandbox(), frame, settings_.uplink).action, kShot);
  }));
  slot(1)->policy = 0;
  EXPECT_TRUE(Gives(bpf::REASON_NO_POLICY, [&] { EXPECT_EQ(FromSandbox(frame).action, kShot); }));
}

TEST_F(ProgramsTest, TapsWhoseIndicesShareAPlace) {
  Bytes frame = Out(kUdp, kWorld, 53).Build();
  uint32_t tap = slot(1)->ifindex, other = tap + CUBE_NEAR_TAPS;
  ASSERT_TRUE(programs_->SetTap(other, 2).ok());
  slot(2)->policy = 0;
  EXPECT_EQ(FromSandbox(frame).action, kRedirect);
  programs_->ForgetTap(tap);
  EXPECT_TRUE(Gives(bpf::REASON_NO_SLOT, [&] { FromSandbox(frame); }));
  ASSERT_TRUE(programs_->SetTap(tap, 1).ok());
  programs_->ForgetTap(other);
  EXPECT_EQ(FromSandbox(frame).action, kRedirect);
  programs_->ForgetTap(tap);
  EXPECT_TRUE(Gives(bpf::REASON_NO_SLOT, [&] { FromSandbox(frame); }));
  ASSERT_TRUE(programs_->SetTap(tap, 1).ok());
}

TEST_F(ProgramsTest, ArpForTheGatewayIsAnsweredInPlace) {
  Bytes request = Arp(1, kGuestMac.data(), Address("169.254.0.21"), Address("169.254.0.22"));
  Outcome answer = FromSandbox(request);
  EXPECT_EQ(answer.action, kRedirect);
  ASSERT_EQ(answer.frame.size(), request.size());
  EXPECT_EQ(Bytes(answer.frame.begin(), answer.frame.begin() + 6), kGuestMac);
  EXPECT_EQ(Bytes(answer.frame.begin() + 6, answer.frame.begin() + 12), kGatewayMac);
  EXPECT_EQ(Get16(answer.frame, 20), 2);  // a reply
  EXPECT_EQ(Bytes(answer.frame.begin() + 22, answer.frame.begin() + 28), kGatewayMac);
  EXPECT_EQ(htonl(Get32(answer.frame, 28)), Address("169.254.0.22"));
  EXPECT_EQ(htonl(Get32(answer.frame, 38)), Address("169.254.0.21"));
}

TEST_F(ProgramsTest, OtherArpIsRefused) {
  const uint32_t self = Address("169.254.0.21"), gateway = Address("169.254.0.22");
  const Bytes other = {2, 0, 0, 0, 0, 1};
  const Bytes frames[] = {
      Arp(1, kGuestMac.data(), self, Address("169.254.0.1")),  // for others
      Arp(1, kGuestMac.data(), self, self),                    // gratuitous
      Arp(2, kGuestMac.data(), self, gateway),                 // an answer nobody asked for
      Arp(1, kGuestMac.data(), gateway, gateway),              // in the gateway's name
      Arp(1, kGuestMac.data(), Address("10.0.0.1"), gateway),
      Arp(1, other.data(), self, gateway),
      Arp(3, kGuestMac.data(), self, gateway),
  };
  for (const Bytes& frame : frames) {
    EXPECT_TRUE(Gives(bpf::REASON_SOURCE, [&] { EXPECT_EQ(FromSandbox(frame).action, kShot); }));
  }
  Bytes cut = Arp(1, kGuestMac.data(), self, gateway);
  cut.resize(30);
  EXPECT_EQ(FromSandbox(cut).action, kShot);
  Bytes strange = Arp(1, kGuestMac.data(), self, gateway);
  strange[18] = 8;  // a hardware address of 8 bytes
  EXPECT_EQ(FromSandbox(strange).action, kShot);
}

TEST_F(ProgramsTest, TagsAndTheRestAreRefused) {
  for (uint16_t ethertype : {0x88cc, 0x0026, 0x8864}) {
    Frame frame = Out(kTcp, kWorld, 53);
    frame.ethertype = ethertype;
    frame.payload = Bytes(40, 0);
    EXPECT_TRUE(Gives(bpf::REASON_ETHERTYPE, [&] {
      EXPECT_EQ(FromSandbox(frame.Build()).action, kShot);
    })) << ethertype;
  }
  for (uint16_t tag : {0x8100, 0x88a8}) {
    Bytes frame = Out(kUdp, kWorld, 53).Build();
    Bytes header = {static_cast<uint8_t>(tag >> 8), static_cast<uint8_t>(tag), 0, 5};
    frame.insert(frame.begin() + 12, header.begin(), header.end());
    EXPECT_TRUE(Gives(bpf::REASON_VLAN, [&] { EXPECT_EQ(FromSandbox(frame).action, kShot); }));
  }
}

TEST_F(ProgramsTest, HeadersThatCannotBe) {
  struct {
    const char* what;
    bpf::reason reason;
    void (*change)(Bytes*);
  } const kCases[] = {
      {"version 5", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[14] = 0x55; }},
      {"a header of 16 bytes", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[14] = 0x44; }},
      {"longer than the frame", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[16] = 4; }},
      {"shorter than its header", bpf::REASON_MALFORMED,
       [](Bytes* f) { (*f)[16] = 0, (*f)[17] = 19; }},
      {"no room for TCP", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[17] = 39; }},
      {"TCP's header is 16 bytes", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[46] = 0x40; }},
      {"TCP's header beyond the packet", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[46] = 0xf0; }},
      {"SYN and FIN", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[47] = 3; }},
      {"SYN and RST", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[47] = 6; }},
      {"GRE", bpf::REASON_PROTOCOL, [](Bytes* f) { (*f)[23] = 47; }},
      {"SCTP", bpf::REASON_PROTOCOL, [](Bytes* f) { (*f)[23] = 132; }},
      {"IGMP", bpf::REASON_PROTOCOL, [](Bytes* f) { (*f)[23] = 2; }},
      {"IPv4 in IPv4", bpf::REASON_PROTOCOL, [](Bytes* f) { (*f)[23] = 4; }},
  };
  for (const auto& each : kCases) {
    Bytes frame = Out(kTcp, kWorld, 80).Build();
    each.change(&frame);
    EXPECT_TRUE(Gives(each.reason, [&] {
      EXPECT_EQ(FromSandbox(frame).action, kShot) << each.what;
    })) << each.what;
  }
  // Cut short anywhere behind what BPF_PROG_TEST_RUN asks for.
  for (uint8_t protocol : {kTcp, kUdp, kIcmp}) {
    Bytes whole = Out(protocol, kWorld, 80).Build();
    for (size_t size = 34; size < whole.size(); ++size) {
      Bytes cut(whole.begin(), whole.begin() + static_cast<long>(size));
      EXPECT_EQ(FromSandbox(cut).action, kShot) << size << " bytes of protocol " << +protocol;
    }
  }
  Bytes udp = Out(kUdp, kWorld, 80).Build();
  udp[39] = 7;
  EXPECT_EQ(FromSandbox(udp).action, kShot);
  udp[39] = 9;
  EXPECT_EQ(FromSandbox(udp).action, kShot);
}

TEST_F(ProgramsTest, OptionsOfIpAreRefused) {
  for (uint8_t option : {7, 68, 131, 137}) {  // record route, time stamp, loose and strict routes
    Frame frame = Out(kUdp, kWorld, 53);
    frame.options = {option, 7, 4, 0, 0, 0, 0, 0};
    EXPECT_TRUE(
        Gives(bpf::REASON_OPTIONS, [&] { EXPECT_EQ(FromSandbox(frame.Build()).action, kShot); }));
  }
}

TEST_F(ProgramsTest, TheHostAndTheNeighboursAreOutOfReach) {
  struct {
    const char* target;
    bpf::reason reason;
  } const kCases[] = {
      {"169.254.169.254", bpf::REASON_FIXED}, {"169.254.0.20", bpf::REASON_FIXED},
      {"169.254.0.21", bpf::REASON_FIXED},    {"169.254.0.22", bpf::REASON_HOST},
      {"10.1.2.3", bpf::REASON_FIXED},        {"203.0.113.1", bpf::REASON_FIXED},
  };
  SetPolicy(1, {"0.0.0.0/0", "169.254.169.254", "10.0.0.0/8"}, {}, true);
  for (const auto& each : kCases) {
    for (uint8_t protocol : {kTcp, kUdp, kIcmp}) {
      EXPECT_TRUE(Gives(each.reason,
                        [&] {
                          Outcome outcome = FromSandbox(Out(protocol, each.target, 80).Build());
                          // Told so, by the TAP it came from.
                          EXPECT_EQ(outcome.action, kRedirect);
                          EXPECT_EQ(outcome.seen.target, Address("169.254.0.21"));
                          EXPECT_TRUE(outcome.seen.valid);
                        }))
          << each.target << " " << +protocol;
    }
  }
  // What the operator has taken out is as anything else.
  EXPECT_EQ(FromSandbox(Out(kTcp, "10.9.1.1", 80).Build()).seen.source, Address("203.0.113.1"));
  SetPolicy(1, {}, {"10.9.1.0/24"}, true);
  EXPECT_TRUE(
      Gives(bpf::REASON_POLICY, [&] { FromSandbox(Out(kTcp, "10.9.1.1", 80, 4001).Build()); }));
}

TEST_F(ProgramsTest, AllowBeatsDenyBeatsTheDefault) {
  auto allowed = [&](uint8_t protocol, const char* target, uint16_t port) {
    static uint16_t from = 10000;
    return FromSandbox(Out(protocol, target, port, ++from).Build()).seen.source ==
           Address("203.0.113.1");
  };
  SetPolicy(1, {"192.0.2.0/24:443", "192.0.2.64/26:53/udp"}, {"192.0.2.0/24", "198.51.100.7"},
            true);
  EXPECT_TRUE(allowed(kTcp, "192.0.2.1", 443));
  EXPECT_TRUE(allowed(kUdp, "192.0.2.1", 443));
  EXPECT_TRUE(allowed(kTcp, "192.0.2.65", 443));  // by the network around it
  EXPECT_FALSE(allowed(kTcp, "192.0.2.1", 80));
  EXPECT_TRUE(allowed(kUdp, "192.0.2.65", 53));
  EXPECT_FALSE(allowed(kTcp, "192.0.2.65", 53));
  EXPECT_FALSE(allowed(kUdp, "192.0.2.1", 53));
  EXPECT_FALSE(allowed(kIcmp, "192.0.2.1", 0));
  EXPECT_FALSE(allowed(kTcp, "198.51.100.7", 443));
  EXPECT_TRUE(allowed(kTcp, "198.51.100.8", 443));
  SetPolicy(1, {"192.0.2.7"}, {"0.0.0.0/0"}, true);
  EXPECT_TRUE(allowed(kTcp, "192.0.2.7", 22));
  EXPECT_TRUE(allowed(kIcmp, "192.0.2.7", 0));
  EXPECT_FALSE(allowed(kTcp, "192.0.2.8", 22));
  SetPolicy(1, {}, {}, false);
  EXPECT_FALSE(allowed(kTcp, "192.0.2.7", 22));
  // The other sandbox has its own.
  EXPECT_EQ(FromSandbox(Out(kTcp, "192.0.2.7", 22).Build(), 2).seen.source, Address("203.0.113.1"));
}

TEST_F(ProgramsTest, ARefusedConnectionIsReset) {
  SetPolicy(1, {}, {}, false);
  Frame syn = Out(kTcp, kWorld, 80);
  syn.sequence = 0xfffffffe;
  Outcome answer = FromSandbox(syn.Build());
  EXPECT_EQ(answer.action, kRedirect);
  EXPECT_TRUE(answer.seen.valid);
  EXPECT_EQ(answer.seen.target_mac, kGuestMac);
  EXPECT_EQ(answer.seen.source, Address(kWorld));
  EXPECT_EQ(answer.seen.source_port, 80);
  EXPECT_EQ(answer.seen.target_port, 4000);
  EXPECT_EQ(answer.seen.flags, 0x14);  // RST, ACK
  EXPECT_EQ(answer.seen.acknowledged, 0xffffffffu);
  Frame data = Out(kTcp, kWorld, 80);
  data.flags = 0x18;
  data.acknowledged = 77;
  data.payload = Bytes(100, 'x');
  answer = FromSandbox(data.Build());
  EXPECT_TRUE(answer.seen.valid);
  EXPECT_EQ(answer.seen.flags, 0x04);
  EXPECT_EQ(answer.seen.sequence, 77u);
  data.flags = 0x04;
  EXPECT_EQ(FromSandbox(data.Build()).action, kShot);  // a reset is not answered
}

TEST_F(ProgramsTest, ARefusedDatagramIsAnsweredByIcmp) {
  SetPolicy(1, {}, {}, false);
  Frame datagram = Out(kUdp, kWorld, 53);
  datagram.payload = Bytes(500, 'x');
  Outcome answer = FromSandbox(datagram.Build());
  EXPECT_EQ(answer.action, kRedirect);
  EXPECT_TRUE(answer.seen.valid);
  EXPECT_EQ(answer.seen.source, Address("169.254.0.22"));
  EXPECT_EQ(answer.seen.icmp_type, 3);
  EXPECT_EQ(answer.seen.icmp_code, 13);
  Seen quoted = ReadPacket(answer.seen.payload, true);
  EXPECT_TRUE(quoted.valid);
  EXPECT_EQ(quoted.source_port, 4000);
  EXPECT_EQ(quoted.target, Address(kWorld));
}

TEST_F(ProgramsTest, TimeToLive) {
  Frame frame = Out(kUdp, kWorld, 33434);
  frame.ttl = 2;
  EXPECT_EQ(FromSandbox(frame.Build()).seen.ttl, 1);
  frame.ttl = 1;
  Outcome answer = FromSandbox(frame.Build());
  EXPECT_EQ(answer.action, kRedirect);
  EXPECT_TRUE(answer.seen.valid);
  EXPECT_EQ(answer.seen.icmp_type, 11);
  EXPECT_EQ(answer.seen.target, Address("169.254.0.21"));
  frame.ttl = 0;
  EXPECT_EQ(FromSandbox(frame.Build()).seen.icmp_type, 11);
}

TEST_F(ProgramsTest, WhatIsTooLongForTheUplink) {
  auto netlink = Netlink::Open();
  ASSERT_TRUE(netlink.ok() && netlink->SetMtu(settings_.uplink, 1400).ok());
  Frame frame = Out(kUdp, kWorld, 53);
  frame.fragment = 0x4000;
  frame.payload = Bytes(1400, 'x');
  Outcome answer = FromSandbox(frame.Build());
  EXPECT_EQ(answer.action, kRedirect);
  EXPECT_TRUE(answer.seen.valid);
  EXPECT_EQ(answer.seen.icmp_type, 3);
  EXPECT_EQ(answer.seen.icmp_code, 4);
  EXPECT_EQ(answer.seen.icmp_rest, 1400u);
  frame.payload.resize(1372);
  EXPECT_EQ(FromSandbox(frame.Build()).seen.source, Address("203.0.113.1"));
  ASSERT_TRUE(netlink->SetMtu(settings_.uplink, 1500).ok());
}

TEST_F(ProgramsTest, InsideAddressesDoNotComeFromOutside) {
  const uint32_t self = Address("203.0.113.1"), world = Address(kWorld);
  EXPECT_EQ(Early(In(kUdp, world, 53, self, 25000).Build()).action, kUnspecified);
  for (const char* inside : {"198.18.0.1", "198.18.7.7", "169.254.0.21", "169.254.0.22"}) {
    EXPECT_EQ(Early(In(kUdp, Address(inside), 53, self, 1).Build()).action, kShot) << inside;
    EXPECT_EQ(Early(In(kUdp, world, 53, Address(inside), 1).Build()).action, kShot) << inside;
  }
}

TEST_F(ProgramsTest, TheRateIsLimited) {
  slot(1)->packets_per_second = 10;
  int passed = 0;
  for (uint16_t i = 0; i < 50; ++i) {
    Outcome outcome = FromSandbox(Out(kUdp, kWorld, 53, 5000 + i).Build());
    passed += outcome.action == kRedirect;
  }
  // A second's worth at once, and what has come together meanwhile.
  EXPECT_GE(passed, 10);
  EXPECT_LT(passed, 25);
  slot(1)->packets_per_second = 0;
  slot(1)->bytes_per_second = 1000;
  Frame large = Out(kUdp, kWorld, 53);
  large.payload = Bytes(1400, 'x');
  EXPECT_EQ(FromSandbox(large.Build()).action, kRedirect);  // on credit
  EXPECT_TRUE(
      Gives(bpf::REASON_RATE, [&] { EXPECT_EQ(FromSandbox(large.Build()).action, kShot); }));
  EXPECT_EQ(FromSandbox(large.Build(), 2).action, kRedirect);
}

TEST_F(ProgramsTest, AddressesThatANameHasOpenedAreLedThroughTheProxy) {
  SetPolicy(1, {"*.example.com"}, {"0.0.0.0/0"}, true);
  EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] { FromSandbox(Out(kTcp, kWorld, 443).Build()); }));
  bpf::opened_key key = {1, Address(kWorld)};
  bpf::opened value = {~0ull, slot(1)->epoch, 0};
  ASSERT_EQ(bpf_map_update_elem(programs_->maps().opened, &key, &value, BPF_ANY), 0);
  Outcome outcome = FromSandbox(Out(kTcp, kWorld, 443).Build());
  EXPECT_EQ(outcome.action, kRedirect);
  EXPECT_TRUE(outcome.seen.valid);
  EXPECT_EQ(outcome.seen.target, Address("198.18.0.1"));
  EXPECT_EQ(outcome.seen.source, Address("198.18.0.2"));
  EXPECT_EQ(outcome.seen.target_port, 5301);
  EXPECT_EQ(outcome.seen.target_mac, (Bytes{2, 0, 0, 0, 0, 9}));
  // And back.
  Frame reply =
      In(kTcp, Address("198.18.0.1"), 5301, outcome.seen.source, outcome.seen.source_port);
  reply.flags = 0x12;
  Outcome back = FromHost(reply.Build());
  EXPECT_EQ(back.action, kRedirect);
  EXPECT_TRUE(back.seen.valid);
  EXPECT_EQ(back.seen.source, Address(kWorld));
  EXPECT_EQ(back.seen.source_port, 443);
  EXPECT_EQ(back.seen.target_port, 4000);
  // No other port, no other protocol, not for longer, not for others.
  for (uint16_t port : {22, 8443}) {
    EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] { FromSandbox(Out(kTcp, kWorld, port).Build()); }));
  }
  EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] { FromSandbox(Out(kUdp, kWorld, 443).Build()); }));
  SetPolicy(2, {"*.example.com"}, {"0.0.0.0/0"}, true);
  EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] { FromSandbox(Out(kTcp, kWorld, 443).Build(), 2); }));
  value.until = 1;
  ASSERT_EQ(bpf_map_update_elem(programs_->maps().opened, &key, &value, BPF_ANY), 0);
  EXPECT_TRUE(
      Gives(bpf::REASON_POLICY, [&] { FromSandbox(Out(kTcp, kWorld, 443, 4001).Build()); }));
}

// Addresses whose sum stays the same say nothing about who has changed a checksum.
TEST_F(ProgramsTest, AddressesOfTheSameSum) {
  // 169.254.0.21 + this = 198.18.0.2 + 198.18.0.1, in ones' complement.
  constexpr const char* kSame = "192.0.34.20";
  SetPolicy(1, {"*.example.com"}, {"0.0.0.0/0"}, true);
  bpf::opened_key key = {1, Address(kSame)};
  bpf::opened value = {~0ull, slot(1)->epoch, 0};
  ASSERT_EQ(bpf_map_update_elem(programs_->maps().opened, &key, &value, BPF_ANY), 0);
  for (uint16_t from = 4100; from < 4110; ++from) {
    Outcome outcome = FromSandbox(Out(kTcp, kSame, 443, from).Build());
    EXPECT_EQ(outcome.action, kRedirect);
    EXPECT_TRUE(outcome.seen.valid) << from;
    EXPECT_EQ(outcome.seen.source, Address("198.18.0.2"));
    EXPECT_EQ(outcome.seen.target_port, 5301);
  }
}

}  // namespace
}  // namespace cube::net::testing
