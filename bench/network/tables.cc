#include "bench/network/tables.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

#include "base/monotonic.h"
#include "bench/report/statistics.h"
#include "net/testing/packet6.h"

namespace cube::net {
namespace {

using testing::Bytes;

// Of a verdict: 20,000 packets, of eight flows of each sandbox at most.
constexpr uint32_t kPackets = 20'000, kFlows = 8;
constexpr int kChanges = 200;

double RunOnce(int program, const Bytes& frame, uint32_t ifindex, uint32_t* action) {
  Bytes out(4096);
  __sk_buff context = {};
  context.ifindex = ifindex;
  LIBBPF_OPTS(bpf_test_run_opts, options);
  options.data_in = frame.data();
  options.data_size_in = static_cast<uint32_t>(frame.size());
  options.data_out = out.data();
  options.data_size_out = static_cast<uint32_t>(out.size());
  options.ctx_in = &context;
  options.ctx_size_in = sizeof context;
  options.repeat = 1;
  if (bpf_prog_test_run_opts(program, &options) != 0) return 0;
  *action = options.retval;
  return options.duration;
}

// What BPF_PROG_TEST_RUN takes for a program that does nothing: part of every figure here.
int LoadEmpty() {
  const bpf_insn nothing[] = {{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 7},
                              {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
  return bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, nullptr, "GPL", nothing, std::size(nothing),
                       nullptr);
}

std::vector<double> Attach(Fabric* fabric) {
  std::vector<double> samples;
  for (int i = 0; i < kChanges; ++i) {
    uint64_t start = MonotonicNow();
    LentTap tap = Must(fabric->Lend());
    Must(fabric->Assign(tap.slot, "probe"));
    Must(fabric->EnsureNetwork("probe", Policy()));
    samples.push_back(static_cast<double>(MonotonicNow() - start) / 1000);
    tap.fd.Reset();
    fabric->ReleaseNetwork("probe");
  }
  return samples;
}

std::vector<double> Update(Fabric* fabric, uint32_t count) {
  std::vector<double> samples;
  for (int i = 0; i < kChanges; ++i) {
    Policy policy = Rules(100'000 + static_cast<uint32_t>(i), fabric->programs().ipv6());
    uint64_t start = MonotonicNow();
    Must(fabric->EnsureNetwork(Format("s%u", static_cast<uint32_t>(i) % count), policy));
    samples.push_back(static_cast<double>(MonotonicNow() - start) / 1000);
    fabric->Tidy();  // as the node does, when nobody waits for it
  }
  return samples;
}

struct Verdicts {
  std::vector<double> known, fresh, nothing;
};

// `frame`: an IPv4 or IPv6 one to the world.
template <typename F>
Verdicts Judge(Fabric* fabric, uint32_t count, F frame) {
  Verdicts verdicts;
  frame.protocol = 17;
  frame.target_port = 9000;
  frame.payload = Bytes(64, 'x');
  int program = fabric->programs().from_sandbox(), empty = LoadEmpty();
  for (uint32_t i = 0; i < kPackets; ++i) {
    uint32_t slot = *fabric->SlotOf(Format("s%u", (i * 7919) % count));
    frame.source_port = static_cast<uint16_t>(1024 + i / count % kFlows);
    Bytes bytes = frame.Build();
    uint32_t ifindex = fabric->SlotState(slot).ifindex, action = 0;
    double first = RunOnce(program, bytes, ifindex, &action);
    if (action != 7) Must(Errorf("action %u in place of TC_ACT_REDIRECT", action));
    if (i / count < kFlows) verdicts.fresh.push_back(first);
    if (i / count < kFlows) continue;
    verdicts.known.push_back(RunOnce(program, bytes, ifindex, &action));
    verdicts.nothing.push_back(RunOnce(empty, bytes, ifindex, &action));
  }
  close(empty);
  return verdicts;
}

std::string Shown(const std::vector<double>& samples) {
  bench::Summary summary = bench::Summarise(samples);
  return Format("%.0f (%.0f)", summary.p50, summary.p99);
}

}  // namespace

void PrintTablesHead() {
  printf(
      "p50 (p99)\n\n| sandboxes | | attach us | policy of %u rules us | verdict ns, known flow | "
      "new flow | an empty program |\n|---|---|---|---|---|---|---|\n",
      kRules);
}

void MeasureTables(Fabric* fabric, uint32_t count, bench::Report* report) {
  MakeSandboxes(fabric, count);
  Must(fabric->Fill(1));
  const bool ipv6 = fabric->programs().ipv6();
  std::vector<double> attach = Attach(fabric), update = Update(fabric, count);
  testing::Frame frame;
  frame.source = testing::Address("169.254.0.21");
  frame.target = testing::Address(kWorld);
  testing::Frame6 frame6;
  frame6.source = testing::Address6("fdcb:6375:6265::15");
  frame6.target = testing::Address6(kWorld6);
  Verdicts verdicts = ipv6 ? Judge(fabric, count, frame6) : Judge(fabric, count, frame);
  const char* family = ipv6 ? "IPv6" : "IPv4";
  printf("| %u | %s | %s | %s | %s | %s | %s |\n", count, family, Shown(attach).c_str(),
         Shown(update).c_str(), Shown(verdicts.known).c_str(), Shown(verdicts.fresh).c_str(),
         Shown(verdicts.nothing).c_str());
  fflush(stdout);
  const std::string by = ipv6 ? " by IPv6" : "";
  Keep(report, count, "verdict on a packet of a known flow" + by, "ns", verdicts.known);
  Keep(report, count, "verdict on a packet of a new flow" + by, "ns", verdicts.fresh);
  if (ipv6) return;
  Keep(report, count, "attach of a TAP that is ready", "us", attach);
  Keep(report, count, "policy of 100 rules", "us", update);
}

}  // namespace cube::net
