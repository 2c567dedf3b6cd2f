#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "net/testing/program_fixture.h"

// Connection tracking and translation of IPv6, by BPF_PROG_TEST_RUN.
namespace cube::net::testing {
namespace {

class Ipv6FlowsTest : public ProgramFixture {
 protected:
  uint8_t State(uint16_t from = 4000) {
    bpf::v6::flow_key key = {1, Address6(kWorld6), htons(from), htons(80), kTcp, {}};
    bpf::v6::flow flow = {};
    flow.state = bpf::FLOW_STATES;
    bpf_map_lookup_elem(programs_->maps6().flows, &key, &flow);
    return flow.state;
  }
  Outcome Send(uint8_t flags, uint16_t from = 4000) {
    Frame6 frame = Out6(kTcp, kWorld6, 80, from);
    frame.flags = flags;
    return FromSandbox(frame.Build());
  }
  Outcome Receive(uint8_t flags, uint16_t port) {
    Frame6 frame = In6(kTcp, kWorld6, 80, port);
    frame.flags = flags;
    return FromWorld(frame.Build());
  }
};

TEST_F(Ipv6FlowsTest, ThereAndBackAgain) {
  for (uint8_t protocol : {kTcp, kUdp, kIcmp6}) {
    for (size_t size : {0, 1, 2, 99, 1400}) {
      Frame6 frame = Out6(protocol, kWorld6, 80);
      for (size_t i = 0; i < size; ++i) frame.payload.push_back(static_cast<uint8_t>(i * 7));
      Outcome out = FromSandbox(frame.Build());
      ASSERT_EQ(out.action, kRedirect);
      EXPECT_TRUE(out.seen6.valid) << +protocol << " " << size;
      EXPECT_EQ(out.seen6.source, Address6(kSelf6));
      EXPECT_EQ(out.seen6.target, Address6(kWorld6));
      EXPECT_EQ(out.seen6.hops, 63);
      EXPECT_EQ(out.seen6.payload, frame.payload);
      uint16_t port = out.seen6.source_port;
      EXPECT_GE(port, 20000);
      EXPECT_LE(port, 29999);
      Frame6 answer = In6(protocol, kWorld6, 80, port);
      answer.flags = kSynAck;
      answer.icmp_type = 129;
      if (protocol == kIcmp6) answer.source_port = port;
      answer.payload = frame.payload;
      Outcome back = FromWorld(answer.Build());
      ASSERT_EQ(back.action, kRedirect);
      EXPECT_TRUE(back.seen6.valid) << +protocol << " " << size;
      EXPECT_EQ(back.seen6.source, Address6(kWorld6));
      EXPECT_EQ(back.seen6.target, Address6(kGuest6));
      EXPECT_EQ(back.seen6.target_mac, kGuestMac);
      EXPECT_EQ(back.seen6.source_mac, kGatewayMac);
      EXPECT_EQ(back.seen6.payload, frame.payload);
      EXPECT_EQ(protocol == kIcmp6 ? back.seen6.source_port : back.seen6.target_port, 4000);
    }
  }
}

TEST_F(Ipv6FlowsTest, TcpFromOpeningToItsEnd) {
  EXPECT_TRUE(Gives(bpf::REASON_NO_FLOW, [&] { Send(kAck); }));
  uint16_t port = Send(kSyn).seen6.source_port;
  EXPECT_EQ(State(), bpf::FLOW_TCP_OPENING);
  EXPECT_EQ(Receive(kSynAck, port).action, kRedirect);
  EXPECT_EQ(State(), bpf::FLOW_TCP_ANSWERED);
  Send(kAck);
  EXPECT_EQ(State(), bpf::FLOW_TCP_ESTABLISHED);
  Send(kFin);
  EXPECT_EQ(State(), bpf::FLOW_TCP_CLOSING);
  Receive(kFin, port);
  EXPECT_EQ(State(), bpf::FLOW_TCP_CLOSED);
  // The port is used again.
  Send(kSyn);
  EXPECT_EQ(State(), bpf::FLOW_TCP_OPENING);
  Send(kRst);
  EXPECT_EQ(State(), bpf::FLOW_TCP_CLOSED);
  // Nothing comes in by itself, to no port and from nobody else.
  EXPECT_EQ(Receive(kSyn, 80).action, kOk);
  EXPECT_EQ(FromWorld(In6(kTcp, "2001:db8:66::7", 80, port).Build()).action, kOk);
}

TEST_F(Ipv6FlowsTest, SandboxesShareAnAddressAndNothingElse) {
  Bytes frame = Out6(kUdp, kWorld6, 53).Build();
  Outcome one = FromSandbox(frame, 1), two = FromSandbox(frame, 2);
  EXPECT_NE(one.seen6.source_port, two.seen6.source_port);
  // One's end is not the other's.
  slot(1)->epoch = ++generation_;
  EXPECT_EQ(FromWorld(In6(kUdp, kWorld6, 53, one.seen6.source_port).Build()).action, kOk);
  EXPECT_EQ(FromWorld(In6(kUdp, kWorld6, 53, two.seen6.source_port).Build()).action, kRedirect);
}

TEST_F(Ipv6FlowsTest, AFlowIsJudgedAgainByANewPolicy) {
  uint16_t port = Send(kSyn).seen6.source_port;
  Receive(kSynAck, port);
  SetPolicy(1, {}, {"2001:db8:80::/48"}, true);
  EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] {
    Outcome refused = Send(kAck);
    EXPECT_EQ(refused.seen6.flags & kRst, kRst);
  }));
  EXPECT_EQ(State(), bpf::FLOW_STATES);
  EXPECT_EQ(Receive(kAck, port).action, kOk);
  // Flows of both families are the sandbox's.
  SetPolicy(1, Policy());
  slot(1)->flows = slot(1)->max_flows;
  EXPECT_TRUE(Gives(bpf::REASON_FLOWS, [&] { Send(kSyn, 4001); }));
}

TEST_F(Ipv6FlowsTest, RefusalsAreAnswered) {
  SetPolicy(1, {}, {"::/0"}, true);
  Outcome reset = Send(kSyn);
  EXPECT_EQ(reset.action, kRedirect);
  EXPECT_TRUE(reset.seen6.valid);
  EXPECT_EQ(reset.seen6.flags, 0x14);
  EXPECT_EQ(reset.seen6.acknowledged, 1001u);
  EXPECT_EQ(reset.seen6.source, Address6(kWorld6));
  EXPECT_EQ(reset.seen6.target, Address6(kGuest6));
  EXPECT_EQ(reset.seen6.target_mac, kGuestMac);
  for (size_t size : {0, 3, 1000}) {
    Frame6 frame = Out6(kUdp, kWorld6, 53);
    frame.payload = Bytes(size, 'x');
    Seen6 quoted = ExpectProhibited6(FromSandbox(frame.Build()));
    EXPECT_EQ(quoted.target, Address6(kWorld6));
    EXPECT_EQ(quoted.target_port, 53);
  }
  SetPolicy(1, Policy());
  Frame6 last = Out6(kUdp, kWorld6, 53);
  last.hops = 1;
  Outcome exceeded = FromSandbox(last.Build());
  EXPECT_EQ(exceeded.seen6.icmp_type, 3);
  EXPECT_TRUE(exceeded.seen6.valid);
}

TEST_F(Ipv6FlowsTest, ErrorsFindTheirFlows) {
  for (uint8_t protocol : {kTcp, kUdp, kIcmp6}) {
    Outcome out = FromSandbox(Out6(protocol, kWorld6, 80).Build());
    Bytes sent(out.frame.begin() + 14, out.frame.begin() + 14 + 48);
    for (auto [type, rest] : {std::pair<uint8_t, uint32_t>{1, 0}, {2, 1280}, {3, 0}, {4, 6}}) {
      Frame6 error = In6(kIcmp6, "2001:db8:99::1", 0, 0);
      error.icmp_type = type;
      error.icmp_rest = rest;
      error.payload = sent;
      Outcome back = FromWorld(error.Build());
      ASSERT_EQ(back.action, kRedirect) << +protocol << " " << +type;
      EXPECT_TRUE(back.seen6.valid);
      EXPECT_EQ(back.seen6.source, Address6("2001:db8:99::1"));
      EXPECT_EQ(back.seen6.target, Address6(kGuest6));
      EXPECT_EQ(back.seen6.icmp_rest, rest);
      Seen6 quoted = ReadPacket6(back.seen6.payload, true);
      EXPECT_EQ(quoted.source, Address6(kGuest6));
      EXPECT_EQ(quoted.target, Address6(kWorld6));
      EXPECT_EQ(quoted.source_port, 4000);
    }
    // About what nobody has sent.
    Frame6 error = In6(kIcmp6, "2001:db8:99::1", 0, 0);
    error.icmp_type = 1;
    error.payload = sent;
    error.payload[39] ^= 1;
    EXPECT_EQ(FromWorld(error.Build()).action, kOk);
    error.payload[39] ^= 1;
    error.payload[23] ^= 1;  // from another
    EXPECT_EQ(FromWorld(error.Build()).action, kOk);
  }
  // The guest's own, about what has come to it.
  Outcome out = FromSandbox(Out6(kUdp, kWorld6, 53, 4001).Build());
  Outcome in = FromWorld(In6(kUdp, kWorld6, 53, out.seen6.source_port).Build());
  Frame6 error = Out6(kIcmp6, kWorld6, 0);
  error.icmp_type = 1;
  error.icmp_code = 4;
  error.payload = Bytes(in.frame.begin() + 14, in.frame.begin() + 14 + 48);
  Outcome told = FromSandbox(error.Build());
  ASSERT_EQ(told.action, kRedirect);
  EXPECT_TRUE(told.seen6.valid);
  EXPECT_EQ(told.seen6.source, Address6(kSelf6));
  EXPECT_EQ(ReadPacket6(told.seen6.payload, true).target, Address6(kSelf6));
  EXPECT_EQ(ReadPacket6(told.seen6.payload, true).target_port, out.seen6.source_port);
}

TEST_F(Ipv6FlowsTest, NamesGoByTheProxy) {
  SetPolicy(1, {"*.example.com"}, {"0.0.0.0/0"}, true);
  EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] { FromSandbox(Out6(kTcp, kWorld6, 443).Build()); }));
  bpf::v6::opened_key key = {1, Address6(kWorld6)};
  bpf::opened value = {~uint64_t{0}, slot(1)->epoch, 0};
  ASSERT_EQ(bpf_map_update_elem(programs_->maps6().opened, &key, &value, BPF_ANY), 0);
  Outcome out = FromSandbox(Out6(kTcp, kWorld6, 443).Build());
  EXPECT_EQ(out.action, kRedirect);
  EXPECT_TRUE(out.seen6.valid);
  EXPECT_EQ(out.seen6.source, Address6(kSlot6));
  EXPECT_EQ(out.seen6.target, Address6(kHost6));
  EXPECT_EQ(out.seen6.target_port, 5306);
  EXPECT_EQ(out.seen6.target_mac, Bytes(settings_.host_mac, settings_.host_mac + 6));
  // The proxy's answer is that server's.
  Frame6 answer;
  answer.source = Address6(kHost6);
  answer.target = Address6(kSlot6);
  answer.flags = kSynAck;
  answer.source_port = 5306;
  answer.target_port = out.seen6.source_port;
  Outcome back = FromHost(answer.Build());
  EXPECT_EQ(back.action, kRedirect);
  EXPECT_TRUE(back.seen6.valid);
  EXPECT_EQ(back.seen6.source, Address6(kWorld6));
  EXPECT_EQ(back.seen6.source_port, 443);
  EXPECT_EQ(back.seen6.target, Address6(kGuest6));
  // Other ports, other protocols, another sandbox: no.
  EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] { FromSandbox(Out6(kTcp, kWorld6, 22).Build()); }));
  EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] { FromSandbox(Out6(kUdp, kWorld6, 443).Build()); }));
  // Not to another port, nor what the host forwards.
  answer.target_port ^= 1;
  EXPECT_EQ(FromHost(answer.Build()).action, kShot);
  answer.target_port ^= 1;
  answer.source = Address6(kWorld6);
  EXPECT_EQ(FromHost(answer.Build()).action, kShot);
}

TEST_F(Ipv6FlowsTest, MappedPorts) {
  MapPort(kTcp, 8080, 2, 80);
  MapPort(kUdp, 8053, 2, 53);
  for (auto [protocol, from, to] : {std::tuple{kTcp, 8080, 80}, {kUdp, 8053, 53}}) {
    auto port = static_cast<uint16_t>(from), inner = static_cast<uint16_t>(to);
    Outcome in = FromWorld(In6(protocol, kWorld6, 55555, port).Build());
    ASSERT_EQ(in.action, kRedirect);
    EXPECT_TRUE(in.seen6.valid);
    EXPECT_EQ(in.seen6.source, Address6(kWorld6));  // the client's own
    EXPECT_EQ(in.seen6.source_port, 55555);
    EXPECT_EQ(in.seen6.target, Address6(kGuest6));
    EXPECT_EQ(in.seen6.target_port, inner);
    EXPECT_EQ(in.seen6.target_mac, kGuestMac);
    // The answer passes, though the policy refuses all that the sandbox begins.
    SetPolicy(2, {}, {}, false);
    Frame6 answer = Out6(protocol, kWorld6, 55555, inner);
    answer.flags = kSynAck;
    Outcome out = FromSandbox(answer.Build(), 2);
    ASSERT_EQ(out.action, kRedirect);
    EXPECT_TRUE(out.seen6.valid);
    EXPECT_EQ(out.seen6.source, Address6(kSelf6));
    EXPECT_EQ(out.seen6.target, Address6(kWorld6));
    EXPECT_EQ(out.seen6.source_port, port);
    // Who was called does not call.
    if (protocol == kTcp) {
      EXPECT_TRUE(Gives(bpf::REASON_NO_FLOW,
                        [&] { FromSandbox(Out6(kTcp, kWorld6, 55555, inner).Build(), 2); }));
    }
    // What it begins itself is refused as before.
    EXPECT_TRUE(Gives(bpf::REASON_POLICY,
                      [&] { FromSandbox(Out6(protocol, kWorld6, 55556, inner).Build(), 2); }));
    // A client may begin anew from the same port.
    EXPECT_EQ(FromWorld(In6(protocol, kWorld6, 55555, port).Build()).action, kRedirect);
  }
  // Both families have flows of their own, to the same guest.
  Outcome v4 = FromWorld(In(kTcp, Address(kWorld), 55555, Address("203.0.113.1"), 8080).Build());
  EXPECT_EQ(v4.action, kRedirect);
  EXPECT_EQ(v4.seen.target, Address("169.254.0.21"));
  EXPECT_EQ(v4.seen.target_port, 80);
}

TEST_F(Ipv6FlowsTest, WhatAMappedPortDoesNotTake) {
  MapPort(kTcp, 8080, 2, 80);
  auto action = [&](const char* source, uint16_t port = 8080, uint8_t protocol = kTcp) {
    return FromWorld(In6(protocol, source, 55555, port).Build()).action;
  };
  // Other ports and protocols, and sources that nobody can answer, are the host's business.
  EXPECT_EQ(action(kWorld6, 8081), kOk);
  EXPECT_EQ(action(kWorld6, 8080, kUdp), kOk);
  for (const char* source : {"::", "::1", "::ffff:192.0.2.80", "::192.0.2.80", "fe80::1", "febf::1",
                             "ff02::1", "ff0e::1"}) {
    EXPECT_EQ(action(source), kOk) << source;
  }
  EXPECT_TRUE(Gives(bpf::REASON_SPOOFED, [&] { EXPECT_EQ(action(kSlot6), kShot); }));
  // Another address of the host's.
  Frame6 other = In6(kTcp, kWorld6, 55555, 8080);
  other.target = Address6("2001:db8:1::7");
  EXPECT_EQ(FromWorld(other.Build()).action, kOk);
  // The middle of no connection.
  for (uint8_t flags : {kAck, kFin, kSynAck, kRst}) {
    EXPECT_TRUE(Gives(bpf::REASON_NO_FLOW, [&] { EXPECT_EQ(Receive(flags, 8080).action, kShot); }));
  }
  slot(2)->flows = slot(2)->max_flows;
  EXPECT_TRUE(Gives(bpf::REASON_FLOWS, [&] { EXPECT_EQ(action(kWorld6), kShot); }));
  slot(2)->flows = 0;
  // A sandbox that has no rules of IPv6 yet, and one that has none at all.
  uint64_t policy = slot(2)->policy;
  slot(2)->policy &= ~(uint64_t{bpf::SLOT_IPV6} << 32);
  EXPECT_TRUE(Gives(bpf::REASON_IPV6, [&] { EXPECT_EQ(action(kWorld6), kShot); }));
  slot(2)->policy = 0;
  EXPECT_TRUE(Gives(bpf::REASON_NO_POLICY, [&] { EXPECT_EQ(action(kWorld6), kShot); }));
  slot(2)->policy = policy;
  // A host without an address outside, to which :: is no address either.
  bpf::settings settings = settings_;
  settings.snat6 = {};
  uint32_t zero = 0;
  ASSERT_EQ(bpf_map_update_elem(programs_->maps().settings, &zero, &settings, BPF_ANY), 0);
  EXPECT_EQ(action(kWorld6), kOk);
  Frame6 nowhere = In6(kTcp, kWorld6, 55555, 8080);
  nowhere.target = {};
  EXPECT_EQ(FromWorld(nowhere.Build()).action, kOk);
  ASSERT_EQ(bpf_map_update_elem(programs_->maps().settings, &zero, &settings_, BPF_ANY), 0);
  EXPECT_EQ(action(kWorld6), kRedirect);
  // The next sandbox in that slot, and the port once it is free.
  slot(2)->epoch = ++generation_;
  EXPECT_EQ(action(kWorld6), kOk);
}

TEST_F(Ipv6FlowsTest, TheHostReachesASandboxAndNotTheOtherWayRound) {
  auto from_host = [&](const char* source, const char* target, uint8_t flags = kSyn) {
    Frame6 frame = In6(kTcp, source, 40000, 8000);
    frame.target = Address6(target);
    frame.flags = flags;
    return FromHost(frame.Build());
  };
  SetPolicy(1, {}, {}, false);
  Outcome in = from_host(kHost6, kSlot6);
  ASSERT_EQ(in.action, kRedirect);
  EXPECT_TRUE(in.seen6.valid);
  EXPECT_EQ(in.seen6.source, Address6(kGateway6));
  EXPECT_EQ(in.seen6.target, Address6(kGuest6));
  EXPECT_EQ(in.seen6.target_port, 8000);
  Frame6 answer = Out6(kTcp, kGateway6, 40000, 8000);
  answer.flags = kSynAck;
  Outcome out = FromSandbox(answer.Build());
  ASSERT_EQ(out.action, kRedirect);
  EXPECT_TRUE(out.seen6.valid);
  EXPECT_EQ(out.seen6.source, Address6(kSlot6));
  EXPECT_EQ(out.seen6.target, Address6(kHost6));
  EXPECT_EQ(out.seen6.source_port, 8000);
  EXPECT_EQ(out.seen6.target_port, 40000);
  EXPECT_EQ(out.seen6.target_mac, Bytes(settings_.host_mac, settings_.host_mac + 6));
  // What others send through the host, what is for no sandbox, and the middle of no connection.
  Frame6 forged = In6(kTcp, kHost6, 40001, 8000);
  forged.target = Address6(kSlot6);
  EXPECT_EQ(FromHost(forged.Build(), settings_.uplink).action, kShot);
  for (const char* source : {kWorld6, kSelf6, kSlot6, "::1", "fe80::1"}) {
    EXPECT_EQ(from_host(source, kSlot6).action, kShot) << source;
  }
  for (const char* target :
       {kHost6, "fdcb:6375:6265:1::9", "fdcb:6375:6265:1::", "fdcb:6375:6265:1::ffff:ffff",
        "fdcb:6375:6265:1::1:0:2", "fdcb:6375:6265:2::2", kGuest6, kWorld6}) {
    EXPECT_EQ(from_host(kHost6, target).action, kShot) << target;
  }
  EXPECT_EQ(from_host(kHost6, "fdcb:6375:6265:1::3", kAck).action, kShot);
  slot(2)->policy &= ~(uint64_t{bpf::SLOT_IPV6} << 32);
  EXPECT_TRUE(Gives(bpf::REASON_IPV6, [&] { from_host(kHost6, "fdcb:6375:6265:1::3"); }));
  // A port of the host's that the sandbox was not spoken to from.
  EXPECT_TRUE(
      Gives(bpf::REASON_HOST, [&] { FromSandbox(Out6(kTcp, kGateway6, 40001, 8000).Build()); }));
}

TEST_F(Ipv6FlowsTest, LimitsHoldForBothFamilies) {
  slot(1)->packets_per_second = 1;
  uint64_t before = Count(bpf::REASON_RATE);
  for (int i = 0; i < 4; ++i) FromSandbox(Out6(kUdp, kWorld6, 53).Build());
  FromSandbox(Out(kUdp, kWorld, 53).Build());
  EXPECT_GE(Count(bpf::REASON_RATE), before + 3);
}

}  // namespace
}  // namespace cube::net::testing
