#include "bench/claims/overhead_scenario.h"

#include <chrono>
#include <thread>

#include "bench/claims/child.h"
#include "bench/claims/guest_command.h"
#include "bench/claims/host.h"
#include "bench/claims/stopwatch.h"

namespace cube::bench {
namespace {

constexpr uint64_t kIdle = 20;
// After a start, until what it left to do is done; and how long nothing is watched.
constexpr std::chrono::seconds kSettle(3);
constexpr std::chrono::seconds kWatch(10);

struct Program {
  const char* name;
  const char* note;
  const char* script;  // of sh
  double operations;   // that it does; a figure is of one
  const char* unit;
};

const Program kPrograms[] = {
    {"computing", "sh counts to 300,000", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done", 1,
     "ms"},
    {"a system call", "dd bs=1, 100,000 reads and writes, of one",
     "exec dd if=/dev/zero of=/dev/null bs=1 count=100000 2>/dev/null", 200'000, "us"},
    {"a process", "sh starts /bin/true 50 times, of one",
     "i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i+1)); done", 50, "ms"},
};

double InUnit(const Program& program, double ms) {
  const double each = ms / program.operations;
  return std::string_view(program.unit) == "us" ? each * 1000 : each;
}

Status Programs(const TrialOptions& options, TrialNode* node, Report* report) {
  CUBE_ASSIGN(TrialClient client, node->Connect());
  CUBE_ASSIGN(TrialSandbox sandbox, client.Create(TrialNode::kCold));
  // What a command costs apart from what it does.
  CUBE_ASSIGN(std::string ignored, RunInGuest(sandbox.vsock, {"/bin/sh", "-c", ":"}));
  for (const Program& program : kPrograms) {
    Measurement guest = {kOverheadGroup, std::string(program.name) + ", in a guest",
                         program.unit,   {},
                         program.note,   true,
                         false};
    Measurement host = {kOverheadGroup,
                        std::string(program.name) + ", on the host",
                        program.unit,
                        {},
                        program.note,
                        true,
                        true};
    for (uint64_t round = 0; round < 1 + options.Rounds(5); ++round) {
      Stopwatch watch;
      CUBE_ASSIGN(ignored, RunInGuest(sandbox.vsock, {"/bin/sh", "-c", ":"}));
      const double nothing_ms = watch.Ms();
      watch = Stopwatch();
      CUBE_ASSIGN(ignored, RunInGuest(sandbox.vsock, {"/bin/sh", "-c", program.script}));
      const double guest_ms = watch.Ms() - nothing_ms;
      CUBE_ASSIGN(ChildRun run, RunChildWell({"/bin/sh", "-c", program.script}));
      if (round == 0) continue;
      guest.samples.push_back(InUnit(program, guest_ms));
      host.samples.push_back(InUnit(program, run.ms));
    }
    report->measurements.push_back(std::move(guest));
    report->measurements.push_back(std::move(host));
  }
  return client.Kill(sandbox.id);
}

Status Idle(TrialNode* node, Report* report) {
  CUBE_ASSIGN(TrialClient client, node->Connect());
  std::vector<TrialSandbox> all;
  for (uint64_t i = 0; i < kIdle; ++i) {
    CUBE_ASSIGN(TrialSandbox sandbox, client.Create(TrialNode::kCold));
    all.push_back(std::move(sandbox));
  }
  std::this_thread::sleep_for(kSettle);
  std::vector<double> before;
  for (const TrialSandbox& each : all) before.push_back(ProcessorMs(each.pid));
  const double daemon_before = ProcessorMs(node->pid());
  std::this_thread::sleep_for(kWatch);
  const auto seconds = static_cast<double>(kWatch.count());
  Measurement idle = {
      kOverheadGroup,
      "processor time of an idle sandbox",
      "ms/s",
      {},
      Format("of %llu, during %.0f s", static_cast<unsigned long long>(kIdle), seconds),
      true,
      false};
  Measurement daemon = {kOverheadGroup,
                        "processor time of cubed beside them",
                        "ms/s",
                        {(ProcessorMs(node->pid()) - daemon_before) / seconds},
                        "pools are full",
                        true,
                        false};
  for (size_t i = 0; i < all.size(); ++i) {
    idle.samples.push_back((ProcessorMs(all[i].pid) - before[i]) / seconds);
  }
  report->measurements.push_back(std::move(idle));
  report->measurements.push_back(std::move(daemon));
  for (const TrialSandbox& each : all) CUBE_TRY(client.Kill(each.id));
  return OkStatus();
}

}  // namespace

Status MeasureOverhead(const TrialOptions& options, TrialNode* node, Report* report) {
  CUBE_TRY(Programs(options, node, report));
  CUBE_TRY(node->AwaitPool());
  return Idle(node, report);
}

}  // namespace cube::bench
