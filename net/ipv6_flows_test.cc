#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "net/testing/program_fixture.h"

// Connection tracking and translation of IPv6, by BPF_PROG_TEST_RUN.
namespace cube::net::testing {
namespace {

constexpr uint8_t kTcp = 6, kUdp = 17;
constexpr uint8_t kFin = 0x11, kSyn = 0x02, kSynAck = 0x12, kRst = 0x04, kAck = 0x10;
constexpr char kThere[] = "2001:db8:80::80";
constexpr char kGuest[] = "fdcb:6375:6265::15", kGateway[] = "fdcb:6375:6265::16";
constexpr char kSelf[] = "2001:db8:1::1";
constexpr char kHost[] = "fdcb:6375:6265:1::1", kSlot1[] = "fdcb:6375:6265:1::2";
const Bytes kGuestMac = {0x02, 0xcb, 0, 0, 0, 0x15};
const Bytes kGatewayMac = {0x02, 0xcb, 0, 0, 0, 0x16};

class Ipv6FlowsTest : public ProgramFixture {
 protected:
  uint8_t State(uint16_t from = 4000) {
    bpf::v6::flow_key key = {1, Address6(kThere), htons(from), htons(80), kTcp, {}};
    bpf::v6::flow flow = {};
    flow.state = bpf::FLOW_STATES;
    bpf_map_lookup_elem(programs_->maps6().flows, &key, &flow);
    return flow.state;
  }
  Outcome Send(uint8_t flags, uint16_t from = 4000) {
    Frame6 frame = Out6(kTcp, kThere, 80, from);
    frame.flags = flags;
    return FromSandbox(frame.Build());
  }
  Outcome Receive(uint8_t flags, uint16_t port) {
    Frame6 frame = In6(kTcp, kThere, 80, port);
    frame.flags = flags;
    return FromWorld(frame.Build());
  }
};

TEST_F(Ipv6FlowsTest, ThereAndBackAgain) {
  for (uint8_t protocol : {kTcp, kUdp, kIcmp6}) {
    for (size_t size : {0, 1, 2, 99, 1400}) {
      Frame6 frame = Out6(protocol, kThere, 80);
      for (size_t i = 0; i < size; ++i) frame.payload.push_back(static_cast<uint8_t>(i * 7));
      Outcome out = FromSandbox(frame.Build());
      ASSERT_EQ(out.action, kRedirect);
      EXPECT_TRUE(out.seen6.valid) << +protocol << " " << size;
      EXPECT_EQ(out.seen6.source, Address6(kSelf));
      EXPECT_EQ(out.seen6.target, Address6(kThere));
      EXPECT_EQ(out.seen6.hops, 63);
      EXPECT_EQ(out.seen6.payload, frame.payload);
      uint16_t port = out.seen6.source_port;
      EXPECT_GE(port, 20000);
      EXPECT_LE(port, 29999);
      Frame6 answer = In6(protocol, kThere, 80, port);
      answer.flags = kSynAck;
      answer.icmp_type = 129;
      if (protocol == kIcmp6) answer.source_port = port;
      answer.payload = frame.payload;
      Outcome back = FromWorld(answer.Build());
      ASSERT_EQ(back.action, kRedirect);
      EXPECT_TRUE(back.seen6.valid) << +protocol << " " << size;
      EXPECT_EQ(back.seen6.source, Address6(kThere));
      EXPECT_EQ(back.seen6.target, Address6(kGuest));
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
  Bytes frame = Out6(kUdp, kThere, 53).Build();
  Outcome one = FromSandbox(frame, 1), two = FromSandbox(frame, 2);
  EXPECT_NE(one.seen6.source_port, two.seen6.source_port);
  // One's end is not the other's.
  slot(1)->epoch = ++generation_;
  EXPECT_EQ(FromWorld(In6(kUdp, kThere, 53, one.seen6.source_port).Build()).action, kOk);
  EXPECT_EQ(FromWorld(In6(kUdp, kThere, 53, two.seen6.source_port).Build()).action, kRedirect);
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
  EXPECT_EQ(reset.seen6.source, Address6(kThere));
  EXPECT_EQ(reset.seen6.target, Address6(kGuest));
  EXPECT_EQ(reset.seen6.target_mac, kGuestMac);
  for (size_t size : {0, 3, 1000}) {
    Frame6 frame = Out6(kUdp, kThere, 53);
    frame.payload = Bytes(size, 'x');
    Outcome error = FromSandbox(frame.Build());
    EXPECT_EQ(error.action, kRedirect);
    EXPECT_TRUE(error.seen6.valid);
    EXPECT_EQ(error.seen6.icmp_type, 1);
    EXPECT_EQ(error.seen6.icmp_code, 1);
    EXPECT_EQ(error.seen6.source, Address6(kGateway));
    EXPECT_EQ(error.seen6.target, Address6(kGuest));
    Seen6 quoted = ReadPacket6(error.seen6.payload, true);
    EXPECT_EQ(quoted.target, Address6(kThere));
    EXPECT_EQ(quoted.target_port, 53);
  }
  SetPolicy(1, Policy());
  Frame6 last = Out6(kUdp, kThere, 53);
  last.hops = 1;
  Outcome exceeded = FromSandbox(last.Build());
  EXPECT_EQ(exceeded.seen6.icmp_type, 3);
  EXPECT_TRUE(exceeded.seen6.valid);
}

TEST_F(Ipv6FlowsTest, ErrorsFindTheirFlows) {
  for (uint8_t protocol : {kTcp, kUdp, kIcmp6}) {
    Outcome out = FromSandbox(Out6(protocol, kThere, 80).Build());
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
      EXPECT_EQ(back.seen6.target, Address6(kGuest));
      EXPECT_EQ(back.seen6.icmp_rest, rest);
      Seen6 quoted = ReadPacket6(back.seen6.payload, true);
      EXPECT_EQ(quoted.source, Address6(kGuest));
      EXPECT_EQ(quoted.target, Address6(kThere));
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
  Outcome out = FromSandbox(Out6(kUdp, kThere, 53, 4001).Build());
  Outcome in = FromWorld(In6(kUdp, kThere, 53, out.seen6.source_port).Build());
  Frame6 error = Out6(kIcmp6, kThere, 0);
  error.icmp_type = 1;
  error.icmp_code = 4;
  error.payload = Bytes(in.frame.begin() + 14, in.frame.begin() + 14 + 48);
  Outcome told = FromSandbox(error.Build());
  ASSERT_EQ(told.action, kRedirect);
  EXPECT_TRUE(told.seen6.valid);
  EXPECT_EQ(told.seen6.source, Address6(kSelf));
  EXPECT_EQ(ReadPacket6(told.seen6.payload, true).target, Address6(kSelf));
  EXPECT_EQ(ReadPacket6(told.seen6.payload, true).target_port, out.seen6.source_port);
}

TEST_F(Ipv6FlowsTest, NamesGoByTheProxy) {
  SetPolicy(1, {"*.example.com"}, {"0.0.0.0/0"}, true);
  EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] { FromSandbox(Out6(kTcp, kThere, 443).Build()); }));
  bpf::v6::opened_key key = {1, Address6(kThere)};
  bpf::opened value = {~uint64_t{0}, slot(1)->epoch, 0};
  ASSERT_EQ(bpf_map_update_elem(programs_->maps6().opened, &key, &value, BPF_ANY), 0);
  Outcome out = FromSandbox(Out6(kTcp, kThere, 443).Build());
  EXPECT_EQ(out.action, kRedirect);
  EXPECT_TRUE(out.seen6.valid);
  EXPECT_EQ(out.seen6.source, Address6(kSlot1));
  EXPECT_EQ(out.seen6.target, Address6(kHost));
  EXPECT_EQ(out.seen6.target_port, 5306);
  EXPECT_EQ(out.seen6.target_mac, Bytes(settings_.host_mac, settings_.host_mac + 6));
  // The proxy's answer is that server's.
  Frame6 answer;
  answer.source = Address6(kHost);
  answer.target = Address6(kSlot1);
  answer.flags = kSynAck;
  answer.source_port = 5306;
  answer.target_port = out.seen6.source_port;
  Outcome back = FromHost(answer.Build());
  EXPECT_EQ(back.action, kRedirect);
  EXPECT_TRUE(back.seen6.valid);
  EXPECT_EQ(back.seen6.source, Address6(kThere));
  EXPECT_EQ(back.seen6.source_port, 443);
  EXPECT_EQ(back.seen6.target, Address6(kGuest));
  // Other ports, other protocols, another sandbox: no.
  EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] { FromSandbox(Out6(kTcp, kThere, 22).Build()); }));
  EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] { FromSandbox(Out6(kUdp, kThere, 443).Build()); }));
  // Nothing else of the host's goes to guests, nor what it forwards.
  answer.target_port ^= 1;
  EXPECT_EQ(FromHost(answer.Build()).action, kShot);
  answer.target_port ^= 1;
  answer.source = Address6(kThere);
  EXPECT_EQ(FromHost(answer.Build()).action, kShot);
}

TEST_F(Ipv6FlowsTest, LimitsHoldForBothFamilies) {
  slot(1)->packets_per_second = 1;
  uint64_t before = Count(bpf::REASON_RATE);
  for (int i = 0; i < 4; ++i) FromSandbox(Out6(kUdp, kThere, 53).Build());
  FromSandbox(Out(kUdp, kWorld, 53).Build());
  EXPECT_GE(Count(bpf::REASON_RATE), before + 3);
}

}  // namespace
}  // namespace cube::net::testing
