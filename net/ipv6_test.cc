#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <cstring>
#include <numeric>

#include "net/testing/program_fixture.h"

// What the programs make of frames of IPv6, by BPF_PROG_TEST_RUN.
namespace cube::net::testing {
namespace {

class Ipv6Test : public ProgramFixture {
 protected:
  Outcome Send(uint8_t flags) {
    Frame6 frame = Out6(kTcp, kWorld6, 80);
    frame.flags = flags;
    return FromSandbox(frame.Build());
  }
  // Why a frame of the guest's is refused, as it should be.
  void ExpectRefused(const Bytes& frame, bpf::reason reason, const std::string& what) {
    EXPECT_TRUE(Gives(reason, [&] {
      int action = FromSandbox(frame).action;
      EXPECT_TRUE(action == kShot || action == kRedirect) << what;
    })) << what;
  }
  void SetSettings(const bpf::settings& settings) {
    uint32_t zero = 0;
    ASSERT_EQ(bpf_map_update_elem(programs_->maps().settings, &zero, &settings, BPF_ANY), 0);
  }
};

TEST_F(Ipv6Test, TheGatewayIsFound) {
  for (const char* asker : {kGuest6, "fe80::cb:ff:fe00:15"}) {
    for (bool with_option : {true, false}) {
      Frame6 ask = Solicitation(asker, kGateway6);
      if (!with_option) ask.payload.resize(16);
      Outcome answer = FromSandbox(ask.Build());
      EXPECT_EQ(answer.action, kRedirect);
      const Seen6& seen = answer.seen6;
      EXPECT_TRUE(seen.valid);
      EXPECT_EQ(seen.target_mac, kGuestMac);
      EXPECT_EQ(seen.source_mac, kGatewayMac);
      EXPECT_EQ(seen.source, Address6(kGateway6));
      EXPECT_EQ(seen.target, Address6(asker));
      EXPECT_EQ(seen.hops, 255);
      EXPECT_EQ(seen.icmp_type, 136);
      EXPECT_EQ(seen.icmp_rest, 0xe0000000);
      Bytes expected = Solicitation(asker, kGateway6).payload;
      expected[16] = 2;
      std::copy(kGatewayMac.begin(), kGatewayMac.end(), expected.begin() + 18);
      EXPECT_EQ(seen.payload, expected);
      EXPECT_EQ(answer.frame.size(), 14u + 72);
    }
  }
  // It is asked again later, and then by its own address.
  Frame6 again = Solicitation(kGuest6, kGateway6);
  again.target = Address6(kGateway6);
  std::copy(kGatewayMac.begin(), kGatewayMac.end(), again.target_mac);
  EXPECT_EQ(FromSandbox(again.Build()).action, kRedirect);
}

TEST_F(Ipv6Test, OtherDiscoveryIsRefused) {
  struct {
    const char* what;
    bpf::reason reason;
    void (*change)(Frame6*);
  } const kCases[] = {
      {"whose is this address", bpf::REASON_SOURCE, [](Frame6* f) { f->source = {}; }},
      {"in the gateway's name", bpf::REASON_SOURCE,
       [](Frame6* f) { f->source = Address6(kGateway6); }},
      {"in another's name", bpf::REASON_SOURCE, [](Frame6* f) { f->source = Address6(kWorld6); }},
      {"another's MAC", bpf::REASON_SOURCE, [](Frame6* f) { f->source_mac[5] = 0x99; }},
      {"an advertisement", bpf::REASON_SOURCE, [](Frame6* f) { f->icmp_type = 136; }},
      {"a router is asked for", bpf::REASON_SOURCE, [](Frame6* f) { f->icmp_type = 133; }},
      {"a router", bpf::REASON_SOURCE, [](Frame6* f) { f->icmp_type = 134; }},
      {"a redirect", bpf::REASON_SOURCE, [](Frame6* f) { f->icmp_type = 137; }},
      {"from afar", bpf::REASON_MALFORMED, [](Frame6* f) { f->hops = 254; }},
      {"a code", bpf::REASON_MALFORMED, [](Frame6* f) { f->icmp_code = 1; }},
      {"cut short", bpf::REASON_MALFORMED, [](Frame6* f) { f->payload.resize(15); }},
      {"for another", bpf::REASON_SOURCE,
       [](Frame6* f) { *f = Solicitation(kGuest6, "fdcb:6375:6265::1:16"); }},
      {"for itself", bpf::REASON_SOURCE,
       [](Frame6* f) {
         Frame6 self = Solicitation(kGuest6, kGuest6);
         f->payload = self.payload;
       }},
  };
  for (const auto& each : kCases) {
    Frame6 frame = Solicitation(kGuest6, kGateway6);
    each.change(&frame);
    ExpectRefused(frame.Build(), each.reason, each.what);
    EXPECT_EQ(FromSandbox(frame.Build()).action, kShot) << each.what;
  }
}

TEST_F(Ipv6Test, FramesFromElsewhereAreRefused) {
  EXPECT_EQ(FromSandbox(Out6(kUdp, kWorld6, 53).Build()).action, kRedirect);
  struct {
    const char* what;
    void (*change)(Frame6*);
  } const kCases[] = {
      {"another MAC", [](Frame6* f) { f->source_mac[5] = 0x99; }},
      {"to another MAC", [](Frame6* f) { f->target_mac[5] = 0x99; }},
      {"to a group", [](Frame6* f) { memcpy(f->target_mac, "\x33\x33\0\0\0\1", 6); }},
      {"to the gateway's group",
       [](Frame6* f) { memcpy(f->target_mac, "\x33\x33\xff\0\0\x16", 6); }},
      {"link-local", [](Frame6* f) { f->source = Address6("fe80::cb:ff:fe00:15"); }},
      {"the gateway's", [](Frame6* f) { f->source = Address6(kGateway6); }},
      {"the host's", [](Frame6* f) { f->source = Address6(kHost6); }},
      {"the uplink's", [](Frame6* f) { f->source = Address6(kSelf6); }},
      {"none", [](Frame6* f) { f->source = {}; }},
      {"loopback", [](Frame6* f) { f->source = Address6("::1"); }},
      {"mapped", [](Frame6* f) { f->source = Address6("::ffff:169.254.0.21"); }},
      {"one bit off", [](Frame6* f) { f->source = Address6("fdcb:6375:6265::1:15"); }},
  };
  for (const auto& each : kCases) {
    Frame6 frame = Out6(kUdp, kWorld6, 53);
    each.change(&frame);
    EXPECT_TRUE(Gives(bpf::REASON_SOURCE, [&] {
      EXPECT_EQ(FromSandbox(frame.Build()).action, kShot) << each.what;
    })) << each.what;
  }
}

TEST_F(Ipv6Test, HeadersThatCannotBeAndThoseBetween) {
  struct {
    const char* what;
    bpf::reason reason;
    void (*change)(Bytes*);
  } const kCases[] = {
      {"version 4", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[14] = 0x40; }},
      {"version 7", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[14] = 0x70; }},
      {"longer than the frame", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[18] = 4; }},
      {"a jumbogram", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[18] = (*f)[19] = 0; }},
      {"half of TCP", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[19] = 19; }},
      {"cut off", bpf::REASON_MALFORMED, [](Bytes* f) { f->resize(60); }},
      {"TCP of 16 bytes", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[66] = 4 << 4; }},
      {"SYN and FIN", bpf::REASON_MALFORMED, [](Bytes* f) { (*f)[67] = 3; }},
      {"hop-by-hop options", bpf::REASON_OPTIONS, [](Bytes* f) { (*f)[20] = 0; }},
      {"routing", bpf::REASON_OPTIONS, [](Bytes* f) { (*f)[20] = 43; }},
      {"destination options", bpf::REASON_OPTIONS, [](Bytes* f) { (*f)[20] = 60; }},
      {"ESP", bpf::REASON_PROTOCOL, [](Bytes* f) { (*f)[20] = 50; }},
      {"AH", bpf::REASON_PROTOCOL, [](Bytes* f) { (*f)[20] = 51; }},
      {"nothing", bpf::REASON_PROTOCOL, [](Bytes* f) { (*f)[20] = 59; }},
      {"IPv4 within", bpf::REASON_PROTOCOL, [](Bytes* f) { (*f)[20] = 4; }},
      {"IPv6 within", bpf::REASON_PROTOCOL, [](Bytes* f) { (*f)[20] = 41; }},
      {"GRE", bpf::REASON_PROTOCOL, [](Bytes* f) { (*f)[20] = 47; }},
      {"SCTP", bpf::REASON_PROTOCOL, [](Bytes* f) { (*f)[20] = 132; }},
      {"ICMP of IPv4", bpf::REASON_PROTOCOL, [](Bytes* f) { (*f)[20] = 1; }},
  };
  for (const auto& each : kCases) {
    Bytes frame = Out6(kTcp, kWorld6, 80).Build();
    each.change(&frame);
    ExpectRefused(frame, each.reason, each.what);
    EXPECT_EQ(FromSandbox(frame).action, kShot) << each.what;
  }
  // Extension headers that are all right by themselves are not carried either, but for those of
  // fragments: this one has no first one.
  for (uint8_t next : {0, 43, 44, 60}) {
    Frame6 frame = Out6(kTcp, kWorld6, 80);
    frame.next = next;
    frame.extension = {kTcp, 0, 1, 4, 0, 0, 0, 0};
    EXPECT_EQ(FromSandbox(frame.Build()).action, kShot) << +next;
  }
  Frame6 bare = Out6(kUdp, kWorld6, 53);
  bare.udp_checksum = false;
  ExpectRefused(bare.Build(), bpf::REASON_MALFORMED, "UDP without a checksum");
  for (uint8_t type : {0, 100, 127, 130, 131, 132, 138, 143, 255}) {
    Frame6 frame = Out6(kIcmp6, kWorld6, 0);
    frame.icmp_type = type;
    ExpectRefused(frame.Build(), bpf::REASON_PROTOCOL, Format("ICMPv6 %u", type));
  }
}

TEST_F(Ipv6Test, TheFixedSetNoPolicyOpens) {
  SetPolicy(1, {"::/0", "0.0.0.0/0"}, {}, true);
  for (const char* target : {"::",           "::1",
                             "::2",          "::ffff:8.8.8.8",
                             "::8.8.8.8",    "64:ff9b::8.8.8.8",
                             "64:ff9b:1::1", "100::1",
                             "2001::1",      "2001:0:4136:e378:8000:63bf:3fff:fdd2",
                             "2001:20::1",   "2002:808:808::1",
                             "4000::1",      "fc00::1",
                             "fd00::1",      "fdcb:6375:6265::15",
                             kHost6,         kSlot6,
                             "fe80::1",      "fe80::cb:ff:fe00:15",
                             "febf::1",      "fec0::1",
                             "feff::1",      "ff02::1",
                             "ff05::2",      "ff0e::1",
                             kSelf6}) {
    for (uint8_t protocol : {kTcp, kUdp, kIcmp6}) {
      ExpectRefused(Out6(protocol, target, 80).Build(), bpf::REASON_FIXED, target);
    }
  }
  ExpectRefused(Out6(kTcp, kGateway6, 53).Build(), bpf::REASON_HOST, "the gateway");
  ExpectRefused(Out6(kUdp, kGateway6, 53).Build(), bpf::REASON_HOST, "the gateway");
  // But for what the operator has excepted, as far as a policy opens that.
  EXPECT_EQ(FromSandbox(Out6(kTcp, "fd09::1", 80).Build()).action, kRedirect);
  EXPECT_EQ(FromSandbox(Out6(kTcp, "2606:4700::1111", 80).Build()).seen6.target,
            Address6("2606:4700::1111"));
}

TEST_F(Ipv6Test, AllowBeatsDenyBeatsTheDefault) {
  struct {
    std::vector<std::string> allow, deny;
    bool internet;
    const char* target;
    uint8_t protocol;
    uint16_t port;
    bool open;
  } const kCases[] = {
      {{}, {}, true, kWorld6, kTcp, 80, true},
      {{}, {}, false, kWorld6, kTcp, 80, false},
      {{}, {"0.0.0.0/0"}, true, kWorld6, kTcp, 80, false},  // everything else is denied by it
      {{"0.0.0.0/0"}, {"0.0.0.0/0"}, true, kWorld6, kTcp, 80, false},
      {{}, {"::/0"}, true, kWorld6, kTcp, 80, false},
      {{kWorld6}, {"::/0"}, true, kWorld6, kTcp, 80, true},
      {{kWorld6}, {"::/0"}, true, "2001:db8:80::81", kTcp, 80, false},
      {{"2001:db8::/32"}, {kWorld6}, false, kWorld6, kTcp, 80, true},
      {{"[2001:db8::/32]:443/tcp"}, {"::/0"}, true, kWorld6, kTcp, 443, true},
      {{"[2001:db8::/32]:443/tcp"}, {"::/0"}, true, kWorld6, kTcp, 80, false},
      {{"[2001:db8::/32]:443/tcp"}, {"::/0"}, true, kWorld6, kUdp, 443, false},
      {{}, {"[::/0]:25"}, true, kWorld6, kTcp, 25, false},
      {{}, {"[::/0]:25"}, true, kWorld6, kTcp, 80, true},
      {{}, {"2001:db8:80::/47"}, true, kWorld6, kTcp, 80, false},
      {{}, {"2001:db8:82::/47"}, true, kWorld6, kTcp, 80, true},
      {{"2001:db8:80::80/128"}, {"2001:db8:80::/64"}, true, kWorld6, kIcmp6, 0, true},
  };
  int number = 0;
  for (const auto& each : kCases) {
    SetPolicy(1, each.allow, each.deny, each.internet);
    uint16_t from = static_cast<uint16_t>(5000 + ++number);
    Outcome out = FromSandbox(Out6(each.protocol, each.target, each.port, from).Build());
    EXPECT_EQ(out.seen6.source == Address6(kSelf6), each.open) << number;
    // The other sandbox's policy is its own.
    EXPECT_EQ(
        FromSandbox(Out6(each.protocol, each.target, each.port, from).Build(), 2).seen6.source,
        Address6(kSelf6));
  }
}

TEST_F(Ipv6Test, WhatExistsInsideOnlyDoesNotComeFromOutside) {
  for (bool as_source : {true, false}) {
    for (const char* address : {kGuest6, kGateway6, kHost6, kSlot6, "fdcb:6375:6265:ffff::1"}) {
      Frame6 frame = In6(kUdp, kWorld6, 80, 80);
      (as_source ? frame.source : frame.target) = Address6(address);
      EXPECT_TRUE(Gives(bpf::REASON_SPOOFED,
                        [&] { EXPECT_EQ(FromWorld(frame.Build()).action, kShot) << address; }));
    }
  }
  // The host's own goes on to it, whatever it is.
  Frame6 own = In6(kIcmp6, "fe80::1", 0, 0);
  own.icmp_type = 135;
  EXPECT_EQ(FromWorld(own.Build()).action, kOk);
}

TEST_F(Ipv6Test, WithoutAnAddressOutsideItIsRefused) {
  bpf::settings settings = settings_;
  settings.snat6 = {};
  SetSettings(settings);
  EXPECT_TRUE(Gives(bpf::REASON_IPV6, [&] { EXPECT_EQ(Send(kSyn).seen6.flags, 0x14); }));
  EXPECT_TRUE(Gives(bpf::REASON_IPV6, [&] {
    EXPECT_EQ(FromSandbox(Out6(kUdp, kWorld6, 53).Build()).seen6.icmp_code, 1);
  }));
  // An answer to :: is nobody's.
  EXPECT_EQ(FromWorld(In6(kUdp, kWorld6, 53, 20000).Build()).action, kOk);
}

TEST_F(Ipv6Test, WhereItIsNotCarriedItIsRefused) {
  auto plain = Programs::Load("");
  ASSERT_TRUE(plain.ok());
  EXPECT_FALSE((*plain)->ipv6());
  const Programs::Maps& maps = (*plain)->maps();
  uint32_t zero = 0, index = slot(1)->ifindex, reason = bpf::REASON_IPV6;
  // Whatever settings and slots say: they may be those of a daemon before.
  (*plain)->slots()[1] = *slot(1);
  ASSERT_TRUE((*plain)->SetTap(index, 1).ok());
  ASSERT_EQ(bpf_map_update_elem(maps.settings, &zero, &settings_, BPF_ANY), 0);
  int program = (*plain)->from_sandbox();
  EXPECT_EQ(Run(program, Out6(kTcp, kWorld6, 80).Build(), index).seen6.flags, 0x14);
  EXPECT_EQ(Run(program, Out6(kUdp, kWorld6, 80).Build(), index).seen6.icmp_code, 1);
  EXPECT_EQ(Run(program, Out6(kUdp, kWorld6, 80).Part(0, 8).Build(), index).action, kShot);
  EXPECT_EQ(Run(program, Solicitation(kGuest6, kGateway6).Build(), index).seen6.icmp_type, 136);
  std::vector<uint64_t> counts(1024);
  ASSERT_EQ(bpf_map_lookup_elem(maps.reasons, &reason, counts.data()), 0);
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), uint64_t{0}), 2u);
  Bytes in = In6(kTcp, kWorld6, 80, 80).Build();
  EXPECT_EQ(Run((*plain)->from_world(), in, settings_.uplink).action, kOk);
  EXPECT_EQ(Run((*plain)->from_host(), in, settings_.host).action, kShot);
  // Without its programs it is dropped.
  for (uint32_t which : {0u, 1u, 2u}) {
    ASSERT_EQ(bpf_map_delete_elem((*plain)->families(), &which), 0);
  }
  EXPECT_EQ(Run(program, Out6(kTcp, kWorld6, 80).Build(), index).action, kShot);
  EXPECT_EQ(Run((*plain)->from_world(), in, settings_.uplink).action, kOk);
  EXPECT_EQ(Run((*plain)->from_host(), in, settings_.host).action, kShot);
}

TEST_F(Ipv6Test, APolicyWithoutRulesOfItOpensNone) {
  slot(1)->policy &= ~(uint64_t{bpf::SLOT_IPV6} << 32);
  EXPECT_TRUE(Gives(bpf::REASON_IPV6, [&] { EXPECT_EQ(Send(kSyn).seen6.flags, 0x14); }));
}

}  // namespace
}  // namespace cube::net::testing
