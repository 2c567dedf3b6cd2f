#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <set>

#include "net/reaper.h"
#include "net/testing/program_fixture.h"

// Connection tracking and translation, by BPF_PROG_TEST_RUN: what a flow makes of its packets.
namespace cube::net::testing {
namespace {

class FlowsTest : public ProgramFixture {
 protected:
  const uint32_t self_ = Address("203.0.113.1");
  const uint32_t guest_ = Address("169.254.0.21");
  const uint32_t world_ = Address(kWorld);

  // A segment of the guest's to port 80.
  Outcome Send(uint8_t flags, uint16_t from = 4000) {
    Frame frame = Out(kTcp, kWorld, 80, from);
    frame.flags = flags;
    return FromSandbox(frame.Build());
  }
  Outcome Receive(uint8_t flags, uint16_t port) {
    Frame frame = In(kTcp, world_, 80, self_, port);
    frame.flags = flags;
    return FromWorld(frame.Build());
  }
  uint8_t State(uint16_t from = 4000) {
    bpf::flow flow = {};
    flow.state = bpf::FLOW_STATES;
    FindFlow(1, kTcp, world_, 80, from, &flow);
    return flow.state;
  }
  // Has the node send from these ports alone.
  void HavePorts(uint16_t first, uint16_t last) {
    bpf::settings few = settings_;
    few.first_port = first;
    few.last_port = last;
    uint32_t zero = 0;
    ASSERT_EQ(bpf_map_update_elem(programs_->maps().settings, &zero, &few, BPF_ANY), 0);
  }
  // Makes a flow as silent as `seconds` ago.
  void Age(uint8_t protocol, uint16_t port, uint16_t from, uint64_t seconds) {
    bpf::flow flow = {};
    ASSERT_TRUE(FindFlow(1, protocol, world_, port, from, &flow));
    bpf::flow_key key = {};
    key.slot = 1;
    key.remote = world_;
    key.local_port = htons(from);
    key.remote_port = htons(port);
    key.protocol = protocol;
    flow.seen -= seconds * 1'000'000'000;
    ASSERT_EQ(bpf_map_update_elem(programs_->maps().flows, &key, &flow, BPF_EXIST), 0);
  }
};

TEST_F(FlowsTest, ThereAndBackAgain) {
  for (uint8_t protocol : {kTcp, kUdp}) {
    for (size_t size : {0, 1, 2, 99, 1400}) {
      Frame frame = Out(protocol, kWorld, 80);
      for (size_t i = 0; i < size; ++i) frame.payload.push_back(static_cast<uint8_t>(i * 7));
      Outcome out = FromSandbox(frame.Build());
      ASSERT_EQ(out.action, kRedirect);
      EXPECT_TRUE(out.seen.valid);
      EXPECT_EQ(out.seen.source, self_);
      EXPECT_EQ(out.seen.target, world_);
      EXPECT_EQ(out.seen.target_port, 80);
      EXPECT_GE(out.seen.source_port, 20000);
      EXPECT_LE(out.seen.source_port, 29999);
      EXPECT_EQ(out.seen.ttl, 63);
      EXPECT_EQ(out.seen.payload, frame.payload);
      Frame answer = In(protocol, world_, 80, self_, out.seen.source_port);
      answer.flags = kSynAck;
      answer.payload = frame.payload;
      Outcome back = FromWorld(answer.Build());
      ASSERT_EQ(back.action, kRedirect);
      EXPECT_TRUE(back.seen.valid);
      EXPECT_EQ(back.seen.source, world_);
      EXPECT_EQ(back.seen.target, guest_);
      EXPECT_EQ(back.seen.source_port, 80);
      EXPECT_EQ(back.seen.target_port, 4000);
      EXPECT_EQ(back.seen.payload, frame.payload);
      EXPECT_EQ(back.seen.target_mac, (Bytes{2, 0xcb, 0, 0, 0, 0x15}));
    }
  }
}

TEST_F(FlowsTest, DatagramsWithoutAChecksumStaySo) {
  Frame frame = Out(kUdp, kWorld, 80);
  frame.udp_checksum = false;
  frame.payload = {1, 2, 3};
  Outcome out = FromSandbox(frame.Build());
  EXPECT_EQ(Get16(out.frame, 40), 0);
  EXPECT_EQ(out.seen.source, self_);
}

TEST_F(FlowsTest, AChecksumOfAllOnesIsNeverNone) {
  // Whatever the translation makes of it, a checksum that was there is there.
  for (uint16_t i = 0; i < 400; ++i) {
    Frame frame = Out(kUdp, kWorld, 80, 7000 + i);
    frame.payload = {static_cast<uint8_t>(i >> 8), static_cast<uint8_t>(i)};
    Outcome out = FromSandbox(frame.Build());
    EXPECT_TRUE(out.seen.valid);
    EXPECT_NE(Get16(out.frame, 40), 0);
  }
}

TEST_F(FlowsTest, TwoSandboxesWithOneAddress) {
  Outcome first = FromSandbox(Out(kTcp, kWorld, 80).Build(), 1);
  Outcome second = FromSandbox(Out(kTcp, kWorld, 80).Build(), 2);
  EXPECT_NE(first.seen.source_port, second.seen.source_port);
  bpf::flow flow = {};
  EXPECT_TRUE(FindFlow(1, kTcp, world_, 80, 4000, &flow));
  EXPECT_EQ(flow.source_port, htons(first.seen.source_port));
  EXPECT_TRUE(FindFlow(2, kTcp, world_, 80, 4000, &flow));
  EXPECT_EQ(flow.source_port, htons(second.seen.source_port));
}

TEST_F(FlowsTest, TheHostsOwnTrafficIsLeftAlone) {
  Bytes frame = In(kTcp, world_, 80, self_, 33333).Build();
  Outcome outcome = FromWorld(frame);
  EXPECT_EQ(outcome.action, kOk);
  EXPECT_EQ(outcome.frame, frame);
  // Another peer, or another port of the same, at a port that a flow has.
  uint16_t port = Send(kSyn).seen.source_port;
  EXPECT_EQ(FromWorld(In(kTcp, Address("192.0.2.81"), 80, self_, port).Build()).action, kOk);
  EXPECT_EQ(FromWorld(In(kTcp, world_, 81, self_, port).Build()).action, kOk);
  EXPECT_EQ(FromWorld(In(kUdp, world_, 80, self_, port).Build()).action, kOk);
}

TEST_F(FlowsTest, StatesOfTcp) {
  uint16_t port = Send(kSyn).seen.source_port;
  EXPECT_EQ(State(), bpf::FLOW_TCP_OPENING);
  EXPECT_EQ(Receive(kSynAck, port).action, kRedirect);
  EXPECT_EQ(State(), bpf::FLOW_TCP_ANSWERED);
  EXPECT_EQ(Send(kAck).seen.source_port, port);
  EXPECT_EQ(State(), bpf::FLOW_TCP_ESTABLISHED);
  Receive(kAck, port);
  EXPECT_EQ(State(), bpf::FLOW_TCP_ESTABLISHED);
  Send(kFin);
  EXPECT_EQ(State(), bpf::FLOW_TCP_CLOSING);
  Send(kFin);  // again
  EXPECT_EQ(State(), bpf::FLOW_TCP_CLOSING);
  Receive(kAck, port);
  EXPECT_EQ(State(), bpf::FLOW_TCP_CLOSING);
  Receive(kFin, port);
  EXPECT_EQ(State(), bpf::FLOW_TCP_CLOSED);
  EXPECT_EQ(Send(kAck).seen.source_port, port);  // of its FIN
  // The same port again, at once.
  EXPECT_EQ(Send(kSyn).action, kRedirect);
  EXPECT_EQ(State(), bpf::FLOW_TCP_OPENING);
}

TEST_F(FlowsTest, AResetEndsAFlow) {
  uint16_t port = Send(kSyn).seen.source_port;
  EXPECT_EQ(Receive(kRst | kAck, port).seen.target, guest_);
  EXPECT_EQ(State(), bpf::FLOW_TCP_CLOSED);
  EXPECT_NE(Send(kSyn).seen.source_port, 0);
  EXPECT_EQ(State(), bpf::FLOW_TCP_OPENING);
}

TEST_F(FlowsTest, TheMiddleOfNoConnection) {
  for (uint8_t flags : {kAck, kFin, kSynAck}) {
    EXPECT_TRUE(Gives(bpf::REASON_NO_FLOW, [&] {
      Outcome outcome = Send(flags, 4444);
      EXPECT_EQ(outcome.seen.flags & kRst, kRst);
      EXPECT_EQ(outcome.seen.target, guest_);
    }));
    EXPECT_EQ(State(4444), bpf::FLOW_STATES);
  }
}

TEST_F(FlowsTest, SilenceEndsAFlow) {
  const struct {
    uint8_t protocol;
    bpf::flow_state state;
  } kCases[] = {{kUdp, bpf::FLOW_UDP_ONE_WAY}, {kTcp, bpf::FLOW_TCP_OPENING}};
  for (const auto& each : kCases) {
    Outcome out = FromSandbox(Out(each.protocol, kWorld, 80, 4700).Build());
    uint64_t limit = bpf::flow_timeout(each.state) / 1'000'000'000;
    Age(each.protocol, 80, 4700, limit - 5);
    Frame answer = In(each.protocol, world_, 80, self_, out.seen.source_port);
    answer.flags = kAck;
    EXPECT_EQ(FromWorld(answer.Build()).action, kRedirect);
    Age(each.protocol, 80, 4700, 8000);
    EXPECT_EQ(FromWorld(answer.Build()).action, kOk);
  }
  // An answered one lives longer.
  EXPECT_GT(bpf::flow_timeout(bpf::FLOW_UDP), bpf::flow_timeout(bpf::FLOW_UDP_ONE_WAY));
}

TEST_F(FlowsTest, APolicyThatChangesEndsWhatItRefuses) {
  uint16_t port = Send(kSyn).seen.source_port;
  Receive(kSynAck, port);
  Send(kAck);
  SetPolicy(1, {kWorld}, {"0.0.0.0/0"}, true);
  EXPECT_EQ(Send(kAck).seen.source_port, port);  // still open
  SetPolicy(1, {}, {kWorld}, true);
  EXPECT_TRUE(Gives(bpf::REASON_POLICY, [&] { EXPECT_EQ(Send(kAck).seen.flags, kRst); }));
  EXPECT_EQ(Receive(kAck, port).action, kOk);  // nobody's any more
  SetPolicy(1, Policy());
  EXPECT_TRUE(Gives(bpf::REASON_NO_FLOW, [&] { Send(kAck); }));
}

TEST_F(FlowsTest, TheNextSandboxInASlotInheritsNothing) {
  uint16_t port = Send(kSyn).seen.source_port;
  slot(1)->epoch = ++generation_;
  EXPECT_EQ(Receive(kSynAck, port).action, kOk);
  EXPECT_TRUE(Gives(bpf::REASON_NO_FLOW, [&] { Send(kAck); }));
}

TEST_F(FlowsTest, LimitOfFlows) {
  slot(1)->max_flows = 5;
  for (uint16_t i = 0; i < 5; ++i) EXPECT_EQ(Send(kSyn, 6000 + i).seen.source, self_);
  EXPECT_TRUE(Gives(bpf::REASON_FLOWS, [&] { Send(kSyn, 6005); }));
  EXPECT_EQ(Send(kAck, 6000).seen.source, self_);
  EXPECT_EQ(FromSandbox(Out(kTcp, kWorld, 80).Build(), 2).seen.source, self_);
}

TEST_F(FlowsTest, PortsOfOneTargetAreAllDifferentAndThenNone) {
  HavePorts(30000, 30009);
  std::set<uint16_t> used;
  int refused = 0;
  for (uint16_t i = 0; i < 30; ++i) {
    Outcome out = Send(kSyn, 6100 + i);
    if (out.seen.source != self_) {
      ++refused;
      continue;
    }
    EXPECT_TRUE(used.insert(out.seen.source_port).second);
  }
  EXPECT_EQ(used.size(), 10u);
  EXPECT_EQ(refused, 20);
  // Another target has all of them, and those of flows that are over are free again.
  EXPECT_EQ(FromSandbox(Out(kTcp, "192.0.2.81", 80).Build()).seen.source, self_);
  for (uint16_t i = 0; i < 30; ++i) {
    bpf::flow flow;
    if (FindFlow(1, kTcp, world_, 80, 6100 + i, &flow)) Age(kTcp, 80, 6100 + i, 100);
  }
  EXPECT_EQ(Send(kSyn, 6200).seen.source, self_);
}

TEST_F(FlowsTest, AClosedConnectionGivesItsPortAwayWhenNoneIsLeft) {
  HavePorts(30000, 30000);
  EXPECT_EQ(Send(kSyn, 6300).seen.source_port, 30000);
  EXPECT_TRUE(Gives(bpf::REASON_PORTS, [&] { Send(kSyn, 6301); }));
  EXPECT_EQ(Send(kFin, 6300).action, kRedirect);
  EXPECT_TRUE(Gives(bpf::REASON_PORTS, [&] { Send(kSyn, 6301); }));
  Receive(kRst, 30000);
  EXPECT_EQ(State(6300), bpf::FLOW_TCP_CLOSED);
  // Its last segments may be on their way.
  EXPECT_TRUE(Gives(bpf::REASON_PORTS, [&] { Send(kSyn, 6301); }));
  Age(kTcp, 80, 6300, 2);
  EXPECT_EQ(Send(kSyn, 6301).seen.source_port, 30000);
  // Who had it has no more part in it.
  EXPECT_TRUE(Gives(bpf::REASON_NO_FLOW, [&] { Send(kAck, 6300); }));
  Outcome answer = FromWorld(In(kTcp, world_, 80, self_, 30000).Build());
  EXPECT_EQ(answer.seen.target_port, 6301);
}

TEST_F(FlowsTest, WhoseFlowIsOverHasNoMorePartInItsPort) {
  HavePorts(30000, 30000);
  EXPECT_EQ(Send(kSyn, 6400).seen.source_port, 30000);
  Age(kTcp, 80, 6400, 100);
  EXPECT_EQ(Send(kSyn, 6401).seen.source_port, 30000);
  // Neither by beginning anew nor by being reaped.
  EXPECT_TRUE(Gives(bpf::REASON_PORTS, [&] { Send(kSyn, 6400); }));
  EXPECT_EQ(Receive(kSynAck, 30000).seen.target_port, 6401);
  Reaper reaper(programs_.get());
  while (!reaper.Step()) {
  }
  EXPECT_EQ(Receive(kAck, 30000).seen.target_port, 6401);
}

TEST_F(FlowsTest, MappedPorts) {
  MapPort(kTcp, 8080, 2, 80);
  Outcome in = FromWorld(In(kTcp, world_, 55555, self_, 8080).Build());
  EXPECT_EQ(in.action, kRedirect);
  EXPECT_TRUE(in.seen.valid);
  EXPECT_EQ(in.seen.source, world_);  // the client's own
  EXPECT_EQ(in.seen.source_port, 55555);
  EXPECT_EQ(in.seen.target, guest_);
  EXPECT_EQ(in.seen.target_port, 80);
  // The answer passes, though the policy refuses all that the sandbox begins.
  SetPolicy(2, {}, {}, false);
  Frame answer = Out(kTcp, kWorld, 55555, 80);
  answer.flags = kSynAck;
  Outcome out = FromSandbox(answer.Build(), 2);
  EXPECT_EQ(out.action, kRedirect);
  EXPECT_TRUE(out.seen.valid);
  EXPECT_EQ(out.seen.source, self_);
  EXPECT_EQ(out.seen.source_port, 8080);
  // Who was called does not call: the caller may be forged.
  EXPECT_TRUE(Gives(bpf::REASON_NO_FLOW, [&] {
    EXPECT_NE(FromSandbox(Out(kTcp, kWorld, 55555, 80).Build(), 2).seen.source, self_);
  }));
  for (const char* nobody : {"0.1.2.3", "127.0.0.1", "169.254.169.254", "224.0.0.1", "255.1.1.1"}) {
    EXPECT_EQ(FromWorld(In(kTcp, Address(nobody), 80, self_, 8080).Build()).action, kOk) << nobody;
  }
  // Not at an address that is not the host's, not for a sandbox that is no more.
  EXPECT_EQ(FromWorld(In(kTcp, world_, 55556, Address("203.0.113.2"), 8080).Build()).action, kOk);
  slot(2)->epoch = ++generation_;
  EXPECT_EQ(FromWorld(In(kTcp, world_, 55557, self_, 8080).Build()).action, kOk);
}

TEST_F(FlowsTest, TheHostReachesASandboxAndNotTheOtherWayRound) {
  const uint32_t host = Address("198.18.0.1"), outer = Address("198.18.0.2");
  Outcome in = FromHost(In(kTcp, host, 40000, outer, 8000).Build());
  EXPECT_EQ(in.action, kRedirect);
  EXPECT_TRUE(in.seen.valid);
  EXPECT_EQ(in.seen.source, Address("169.254.0.22"));
  EXPECT_EQ(in.seen.target, guest_);
  EXPECT_EQ(in.seen.target_port, 8000);
  Frame answer = Out(kTcp, "169.254.0.22", 40000, 8000);
  answer.flags = kSynAck;
  Outcome out = FromSandbox(answer.Build());
  EXPECT_EQ(out.action, kRedirect);
  EXPECT_TRUE(out.seen.valid);
  EXPECT_EQ(out.seen.source, outer);
  EXPECT_EQ(out.seen.target, host);
  EXPECT_EQ(out.seen.source_port, 8000);
  EXPECT_EQ(out.seen.target_port, 40000);
  EXPECT_EQ(out.seen.target_mac, (Bytes{2, 0, 0, 0, 0, 9}));
  // What others send through the host, and what is for no sandbox, goes nowhere.
  EXPECT_EQ(FromHost(In(kTcp, world_, 40000, outer, 8000).Build()).action, kShot);
  EXPECT_EQ(FromHost(In(kTcp, host, 40000, Address("198.18.3.3"), 8000).Build()).action, kShot);
  EXPECT_EQ(FromHost(In(kTcp, host, 40000, Address("198.18.255.255"), 8000).Build()).action, kShot);
  EXPECT_EQ(FromHost(In(kTcp, host, 40002, outer, 8000).Build(), settings_.uplink).action, kShot);
  // A port of the host's that the sandbox was not spoken to from.
  EXPECT_TRUE(Gives(bpf::REASON_HOST,
                    [&] { FromSandbox(Out(kTcp, "169.254.0.22", 40001, 8000).Build()); }));
}

TEST_F(FlowsTest, TheResolver) {
  for (uint8_t protocol : {kUdp, kTcp}) {
    Outcome out = FromSandbox(Out(protocol, "169.254.0.22", 53).Build());
    EXPECT_EQ(out.action, kRedirect);
    EXPECT_TRUE(out.seen.valid);
    EXPECT_EQ(out.seen.source, Address("198.18.0.2"));
    EXPECT_EQ(out.seen.target, Address("198.18.0.1"));
    EXPECT_EQ(out.seen.target_port, 5300);
    Frame reply = In(protocol, Address("198.18.0.1"), 5300, out.seen.source, out.seen.source_port);
    reply.flags = kSynAck;
    Outcome back = FromHost(reply.Build());
    EXPECT_EQ(back.action, kRedirect);
    EXPECT_TRUE(back.seen.valid);
    EXPECT_EQ(back.seen.source, Address("169.254.0.22"));
    EXPECT_EQ(back.seen.source_port, 53);
    EXPECT_EQ(back.seen.target_port, 4000);
  }
  EXPECT_TRUE(
      Gives(bpf::REASON_HOST, [&] { FromSandbox(Out(kUdp, "169.254.0.22", 853).Build()); }));
}

TEST_F(FlowsTest, Counters) {
  auto read = [&] {
    std::vector<bpf::slot_counters> all(1024);
    uint32_t key = 1;
    EXPECT_EQ(bpf_map_lookup_elem(programs_->maps().counters, &key, all.data()), 0);
    bpf::slot_counters sum = {};
    for (const auto& one : all) {
      sum.packets_out += one.packets_out;
      sum.bytes_out += one.bytes_out;
      sum.packets_in += one.packets_in;
      sum.denied += one.denied;
      sum.flows += one.flows;
    }
    return sum;
  };
  bpf::slot_counters before = read();
  Bytes frame = Out(kUdp, kWorld, 80, 4600).Build();
  uint16_t port = FromSandbox(frame).seen.source_port;
  FromWorld(In(kUdp, world_, 80, self_, port).Build());
  FromSandbox(Out(kUdp, "10.0.0.1", 80, 4600).Build());
  bpf::slot_counters after = read();
  EXPECT_EQ(after.packets_out - before.packets_out, 1u);
  EXPECT_EQ(after.bytes_out - before.bytes_out, frame.size());
  EXPECT_EQ(after.packets_in - before.packets_in, 1u);
  EXPECT_EQ(after.denied - before.denied, 1u);
  EXPECT_EQ(after.flows - before.flows, 1u);
}

}  // namespace
}  // namespace cube::net::testing
