#include "net/testing/program_fixture.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstring>

#include "net/fixed_set.h"
#include "net/rule_table.h"
#include "net/tap_device.h"

namespace cube::net::testing {

std::unique_ptr<Programs> ProgramFixture::programs_;
bpf::settings ProgramFixture::settings_;
uint32_t ProgramFixture::generation_ = 0;

Status EnterNamespace() {
  if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0) {
    return ErrnoError("these tests need root: a network namespace");
  }
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) return ErrnoError("mounts");
  // /sys shows the interfaces of the namespace that it was mounted from.
  if (mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700") < 0) return ErrnoError("/sys/fs/bpf");
  CUBE_ASSIGN(Netlink netlink, Netlink::Open());
  return netlink.SetUp(1);
}

void ProgramFixture::SetUpTestSuite() {
  Status entered = EnterNamespace();
  ASSERT_TRUE(entered.ok()) << entered.error().message();
  auto netlink = Netlink::Open();
  ASSERT_TRUE(netlink.ok());
  for (const char* name : {"tap1", "tap2"}) ASSERT_TRUE(MakeTap(name, 0).ok());
  ASSERT_TRUE(netlink->AddVeth("up", "world").ok());
  ASSERT_TRUE(netlink->AddVeth("host", "peer").ok());
  for (const char* name : {"tap1", "tap2", "up", "world", "host", "peer"}) {
    auto link = netlink->Find(name);
    ASSERT_TRUE(link.ok() && link->has_value());
    ASSERT_TRUE(netlink->SetUp((*link)->index).ok());
  }
  auto programs = Programs::Load("", true);
  ASSERT_TRUE(programs.ok()) << programs.error().message();
  programs_ = std::move(*programs);
  settings_ = {};
  settings_.uplink = (*netlink->Find("up"))->index;
  settings_.host = (*netlink->Find("host"))->index;
  settings_.host_address = Address("198.18.0.1");
  settings_.host_network = Address("198.18.0.0");
  settings_.host_mask = Address("255.255.0.0");
  settings_.snat_count = 1;
  settings_.snat[0] = Address("203.0.113.1");
  settings_.first_port = 20000;
  settings_.last_port = 29999;
  settings_.resolver_port = htons(5300);
  settings_.peek_port = htons(5301);
  settings_.snat6 = Address6(kSelf6);
  settings_.peek_port6 = htons(5306);
  const uint8_t host_mac[6] = {2, 0, 0, 0, 0, 9};
  memcpy(settings_.host_mac, host_mac, 6);
  for (uint32_t number : {1u, 2u}) {
    uint32_t index = (*netlink->Find(Format("tap%u", number)))->index;
    bpf::slot& slot = programs_->slots()[number];
    slot.ifindex = index;
    slot.host_address = Address(Format("198.18.0.%u", number + 1).c_str());
    ASSERT_TRUE(programs_->SetTap(index, number).ok());
  }
  bpf::fixed_key denied = {16, Address("169.254.0.0")};
  uint32_t action = FIXED_DENIED;
  ASSERT_EQ(bpf_map_update_elem(programs_->maps().fixed, &denied, &action, BPF_ANY), 0);
  denied = {8, Address("10.0.0.0")};
  ASSERT_EQ(bpf_map_update_elem(programs_->maps().fixed, &denied, &action, BPF_ANY), 0);
  denied = {32, Address("203.0.113.1")};
  ASSERT_EQ(bpf_map_update_elem(programs_->maps().fixed, &denied, &action, BPF_ANY), 0);
  denied = {16, Address("10.9.0.0")};
  action = FIXED_EXCEPTED;
  ASSERT_EQ(bpf_map_update_elem(programs_->maps().fixed, &denied, &action, BPF_ANY), 0);
  FixedSet6 fixed(programs_->maps6().fixed);
  auto entries =
      FixedSet6::Make({*ParseNetwork6("fd09::/16")}, {kInside6, *ParseNetwork6("2001:db8:1::1")});
  Status set = fixed.Set(entries);
  ASSERT_TRUE(set.ok()) << set.error().message();
}

void ProgramFixture::TearDownTestSuite() { programs_.reset(); }

void ProgramFixture::SetUp() {
  uint32_t zero = 0;
  ASSERT_EQ(bpf_map_update_elem(programs_->maps().settings, &zero, &settings_, BPF_ANY), 0);
  for (uint32_t number : {1u, 2u}) {
    slot(number)->epoch = ++generation_;  // what is left of the test before is dead
    slot(number)->flows = 0;
    slot(number)->max_flows = 1000;
    slot(number)->bytes_per_second = slot(number)->packets_per_second = 0;
    SetPolicy(number, Policy());
  }
}

void ProgramFixture::SetPolicy(uint32_t number, const Policy& policy) {
  auto rules = CompilePolicy(policy);
  ASSERT_TRUE(rules.ok());
  RuleTable table(programs_->maps().rules);
  Status added = table.Add(++generation_, *rules);
  ASSERT_TRUE(added.ok()) << added.error().message();
  auto rules6 = CompilePolicy6(policy);
  ASSERT_TRUE(rules6.ok());
  ASSERT_TRUE(RuleTable6(programs_->maps6().rules).Add(generation_, *rules6).ok());
  slot(number)->policy = PolicyWord(policy, generation_, true);
}

void ProgramFixture::SetPolicy(uint32_t number, const std::vector<std::string>& allow,
                               const std::vector<std::string>& deny, bool internet) {
  auto policy = Policy::Parse(allow, deny, internet);
  ASSERT_TRUE(policy.ok()) << policy.error().message();
  SetPolicy(number, *policy);
}

Outcome ProgramFixture::Run(int program, const Bytes& frame, uint32_t ifindex, uint32_t segment,
                            uint32_t came) {
  Outcome outcome;
  outcome.frame.resize(4096 + frame.size());
  __sk_buff context = {};
  context.ifindex = ifindex;
  context.gso_size = segment;
  context.ingress_ifindex = came;
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.data_in = frame.data();
  options.data_size_in = static_cast<uint32_t>(frame.size());
  options.data_out = outcome.frame.data();
  options.data_size_out = static_cast<uint32_t>(outcome.frame.size());
  options.ctx_in = &context;
  options.ctx_size_in = sizeof context;
  options.repeat = 1;
  int failed = bpf_prog_test_run_opts(program, &options);
  EXPECT_EQ(failed, 0) << strerror(-failed);
  outcome.action = static_cast<int>(options.retval);
  outcome.frame.resize(options.data_size_out);
  outcome.seen = Read(outcome.frame);
  outcome.seen6 = Read6(outcome.frame);
  return outcome;
}

Outcome ProgramFixture::FromSandbox(const Bytes& frame, uint32_t number) {
  return Run(programs_->from_sandbox(), frame, slot(number)->ifindex);
}
Outcome ProgramFixture::FromWorld(const Bytes& frame) {
  return Run(programs_->from_world(), frame, settings_.uplink);
}
Outcome ProgramFixture::FromHost(const Bytes& frame, uint32_t came) {
  return Run(programs_->from_host(), frame, settings_.host, 0, came);
}
Outcome ProgramFixture::Early(const Bytes& frame) {
  return Run(programs_->early_filter(), frame, settings_.uplink);
}

Frame ProgramFixture::Out(uint8_t protocol, const char* target, uint16_t port, uint16_t from) {
  Frame frame;
  frame.source = Address("169.254.0.21");
  frame.target = Address(target);
  frame.protocol = protocol;
  frame.source_port = from;
  frame.target_port = port;
  return frame;
}

Frame ProgramFixture::In(uint8_t protocol, uint32_t source, uint16_t port, uint32_t target,
                         uint16_t to) {
  Frame frame;
  frame.source = source;
  frame.target = target;
  frame.protocol = protocol;
  frame.source_port = port;
  frame.target_port = to;
  return frame;
}

Frame6 ProgramFixture::Out6(uint8_t protocol, const char* target, uint16_t port, uint16_t from) {
  Frame6 frame;
  frame.source = Address6(kGuest6);
  frame.target = Address6(target);
  frame.protocol = protocol;
  frame.source_port = from;
  frame.target_port = port;
  return frame;
}

Frame6 ProgramFixture::In6(uint8_t protocol, const char* source, uint16_t port, uint16_t to) {
  Frame6 frame;
  frame.source = Address6(source);
  frame.target = settings_.snat6;
  frame.protocol = protocol;
  frame.source_port = port;
  frame.target_port = to;
  return frame;
}

Seen6 ProgramFixture::ExpectProhibited6(const Outcome& outcome) {
  EXPECT_EQ(outcome.action, kRedirect);
  EXPECT_TRUE(outcome.seen6.valid);
  EXPECT_EQ(outcome.seen6.icmp_type, 1);
  EXPECT_EQ(outcome.seen6.icmp_code, 1);
  EXPECT_EQ(outcome.seen6.source, Address6(kGateway6));
  EXPECT_EQ(outcome.seen6.target, Address6(kGuest6));
  return ReadPacket6(outcome.seen6.payload, true);
}

void ProgramFixture::MapPort(uint8_t protocol, uint16_t host_port, uint32_t number, uint16_t port) {
  bpf::port_key key = {htons(host_port), protocol, 0};
  bpf::port_target target = {number, slot(number)->epoch, htons(port), 0};
  ASSERT_EQ(bpf_map_update_elem(programs_->maps().ports, &key, &target, BPF_ANY), 0);
}

uint64_t ProgramFixture::Count(bpf::reason reason) {
  std::vector<uint64_t> counts(1024);  // one for each processor there could be
  uint32_t key = reason;
  EXPECT_EQ(bpf_map_lookup_elem(programs_->maps().reasons, &key, counts.data()), 0);
  uint64_t sum = 0;
  for (uint64_t one : counts) sum += one;
  return sum;
}

bool ProgramFixture::FindFlow(uint32_t slot, uint8_t protocol, uint32_t remote,
                              uint16_t remote_port, uint16_t local_port, bpf::flow* flow) {
  bpf::flow_key key = {};
  key.slot = slot;
  key.remote = remote;
  key.local_port = htons(local_port);
  key.remote_port = protocol == 1 ? 0 : htons(remote_port);
  key.protocol = protocol;
  return bpf_map_lookup_elem(programs_->maps().flows, &key, flow) == 0;
}

}  // namespace cube::net::testing
