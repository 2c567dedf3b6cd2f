#include "bench/claims/boot_scenario.h"

#include <boost/json.hpp>
#include <map>

#include "bench/claims/child.h"
#include "bench/claims/qemu_peer.h"

namespace cube::bench {
namespace {

namespace json = boost::json;

constexpr char kGroup[] = "boot";

// The milliseconds of each phase, of the last line of --json's output.
Result<std::map<std::string, double>> PhasesOf(const std::string& output) {
  size_t end = output.find_last_not_of('\n');
  if (end == std::string::npos) return Errorf("no answer");
  size_t start = output.rfind('\n', end);
  json::error_code failed;
  json::value value =
      json::parse(output.substr(start == std::string::npos ? 0 : start + 1), failed);
  const json::object* object = failed ? nullptr : value.if_object();
  const json::value* phases = object == nullptr ? nullptr : object->if_contains("milliseconds");
  if (phases == nullptr || !phases->is_object()) return Errorf("an answer without phases");
  std::map<std::string, double> of;
  for (const auto& [name, ms] : phases->get_object()) {
    double number = ms.to_number<double>(failed);
    if (!failed) of[name] = number;
  }
  return of;
}

// Until the agent has found no mailbox, said so, and let the machine end.
Result<ChildRun> BootQemu(const TrialOptions& options) {
  std::vector<std::string> command = QemuCommand(options);
  command.insert(command.begin(), {"timeout", "120"});
  CUBE_ASSIGN(ChildRun run, RunChild(command));
  if (run.output.find("cube-agent") == std::string::npos) {
    return Errorf("QEMU did not come to the agent: status %d", run.status);
  }
  return run;
}

}  // namespace

Status MeasureBoots(const TrialOptions& options, Report* report) {
  std::map<std::string, Measurement> phases;
  Measurement whole = {kGroup, "all, from exec to exit", "ms"};
  Measurement peer = {kGroup,
                      "QEMU, TCG: start to agent, and its end",
                      "ms",
                      {},
                      "microvm, the same kernel and initramfs, no root disk",
                      true,
                      true};
  bool has_qemu = HasQemu(options);
  if (!has_qemu) report->warnings.push_back("no qemu-system-x86_64: its boot was not measured");
  for (uint64_t round = 0; round < options.Rounds(5); ++round) {
    CUBE_ASSIGN(ChildRun run,
                RunChildWell({options.vmm, "run", "--boot", "--json", "--kernel", options.kernel,
                              "--initrd", options.boot_initrd, "--memory",
                              std::to_string(options.memory_mib), "--", "/bin/true"}));
    whole.samples.push_back(run.ms);
    CUBE_ASSIGN(auto of, PhasesOf(run.output));
    for (const auto& [name, ms] : of) {
      phases.try_emplace(name, Measurement{kGroup, "phase: " + name, "ms"})
          .first->second.samples.push_back(ms);
    }
    if (!has_qemu) continue;
    auto booted = BootQemu(options);
    has_qemu = booted.ok();
    if (has_qemu) {
      peer.samples.push_back(booted->ms);
    } else {
      report->warnings.push_back(booted.error().message());
    }
  }
  report->measurements.push_back(std::move(whole));
  for (auto& [name, each] : phases) report->measurements.push_back(std::move(each));
  if (!peer.samples.empty()) report->measurements.push_back(std::move(peer));
  return OkStatus();
}

}  // namespace cube::bench
