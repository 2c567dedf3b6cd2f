#include "bench/claims/claims.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <memory>
#include <thread>

#include "bench/claims/api_scenario.h"
#include "bench/claims/boot_scenario.h"
#include "bench/claims/churn_scenario.h"
#include "bench/claims/create_scenario.h"
#include "bench/claims/density_scenario.h"
#include "bench/claims/freeze_scenario.h"
#include "bench/claims/host.h"
#include "bench/claims/network_scenario.h"
#include "bench/claims/overhead_scenario.h"
#include "bench/claims/published.h"
#include "bench/claims/restore_scenario.h"
#include "bench/claims/stopwatch.h"
#include "bench/claims/throughput_scenario.h"
#include "bench/report/plot.h"
#include "bench/report/statistics.h"

namespace cube::bench {
namespace {

constexpr uint64_t kPool = 100, kChurnPool = 20, kApiPool = 50;
// Beyond these others had so much of the machine that its times say little.
constexpr double kMostSteal = 5, kMostLoadPerProcessor = 1;

double P50(const Summary& summary) { return summary.p50; }
double P99(const Summary& summary) { return summary.p99; }

struct Rule {
  const char* text;
  const char *group, *name;
  double (*figure)(const Summary&);
  double limit;
  const char* unit;
};

constexpr Rule kRules[] = {
    {"a sandbox is created in under 60 ms: p99, one at a time", kCreateGroup, kWarmReady, P99, 60,
     "ms"},
    {"... and has answered a command: p50", kCreateGroup, kWarmOutput, P50, 60, "ms"},
    {"20 at once are all there in under 60 ms: p50", kAtOnce, "20, until all are READY, parked",
     P50, 60, "ms"},
    {"an instance takes less than 5 MB: MemAvailable, 100 idle", kMemoryGroup,
     "the host's MemAvailable, 100 idle", P50, 5 * 1024, "KiB"},
    {"... less than 2.5 MB", kMemoryGroup, "the host's MemAvailable, 100 idle", P50, 2.5 * 1024,
     "KiB"},
    {"create to READY, one at a time: p50 of 4 ms or less", kCreateGroup, kWarmReady, P50, 4, "ms"},
    {"50 at once: 150 ms or less", kAtOnce, "50, until all are READY, parked", P50, 150, "ms"},
    {"POST /sandboxes to 201: p50 of 4 ms or less", kApiGroup, kApiCreate, P50, 4, "ms"},
    {"... p99 of 12 ms or less", kApiGroup, kApiCreate, P99, 12, "ms"},
    {"100 at once: 300 ms or less", kAtOnce, "100, until all are READY, parked", P50, 300, "ms"},
};

std::string Now() {
  time_t now = time(nullptr);
  tm parts = {};
  gmtime_r(&now, &parts);
  char text[32];
  return std::string(text, strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts));
}

// A report with the machine in it, and whether it was quiet.
Result<Report> Begin(const char* title, const TrialOptions& options, NoiseMeter* meter) {
  Report report;
  report.title = title;
  report.started = Now();
  CUBE_ASSIGN(report.machine, MachineFacts(options.vmm));
  const double load = meter->Read().load;
  report.machine.push_back({"load at the start", ShortNumber(load)});
  const double processors = static_cast<double>(std::max(1u, std::thread::hardware_concurrency()));
  if (load > kMostLoadPerProcessor * processors) {
    report.warnings.push_back(Format("%s: a load of %.1f on %.0f processors before anything began",
                                     kRunRejected, load, processors));
  }
  return report;
}

void End(const Stopwatch& watch, NoiseMeter* meter, Report* report) {
  const double steal = meter->Read().steal_percent;
  report->machine.push_back({"steal", ShortNumber(steal) + " %"});
  if (steal > kMostSteal) {
    report->warnings.push_back(
        Format("%s: %.0f %% of the processors' time was taken by this machine's host", kRunRejected,
               steal));
  }
  report->seconds = watch.Ms() / 1000;
}

void Note(const char* part, const Status& status, Report* report) {
  if (status.ok()) return;
  report->warnings.push_back(std::string(part) + ": " + status.error().message());
  fprintf(stderr, "cube-bench: %s: %s\n", part, status.error().message().c_str());
}

}  // namespace

std::vector<Claim> Decide(const Report& report) {
  std::vector<Claim> claims;
  const bool is_rejected =
      std::any_of(report.warnings.begin(), report.warnings.end(),
                  [](const std::string& one) { return one.starts_with(kRunRejected); });
  for (const Rule& rule : kRules) {
    Claim claim = {rule.text, "", Verdict::kNotMeasured, "nothing was measured"};
    const Measurement* one = report.Find(rule.group, rule.name);
    if (one != nullptr && !one->samples.empty()) {
      const double figure = rule.figure(Summarise(one->samples));
      claim.figure = ShortNumber(figure) + " " + rule.unit;
      claim.verdict = figure <= rule.limit ? Verdict::kHolds : Verdict::kFails;
      claim.reason = "limit " + ShortNumber(rule.limit) + " " + rule.unit;
      if (is_rejected && std::string_view(rule.unit) == "ms") {
        claim.verdict = Verdict::kNotMeasured;
        claim.reason += "; the machine was too busy to say";
      }
    }
    claims.push_back(std::move(claim));
  }
  return claims;
}

Result<Report> RunClaims(const TrialOptions& options) {
  Stopwatch watch;
  NoiseMeter meter;
  CUBE_ASSIGN(Report report, Begin("Cube: the claims, measured", options, &meter));
  report.published = PublishedFigures();

  fprintf(stderr, "cube-bench: building the template\n");
  CUBE_ASSIGN(std::unique_ptr<TrialNode> node, TrialNode::Make(options));
  report.measurements.push_back({"template", "build", "ms", {node->build_ms()}});
  fprintf(stderr, "cube-bench: creates\n");
  Note("clones without a node", MeasureColdClones(options, *node, &report), &report);
  Note("restores", MeasureRestores(options, *node, &report), &report);
  CUBE_TRY(node->Start(kPool));
  Note("creates", MeasureCreates(options, node.get(), &report), &report);
  Note("creates at random moments", MeasureOpenLoop(options, node.get(), &report), &report);
  fprintf(stderr, "cube-bench: many at once\n");
  Note("many at once", MeasureBursts(options, node.get(), &report), &report);
  fprintf(stderr, "cube-bench: pause, resume, snapshot, rollback, fork\n");
  Note("freezes", MeasureFreezes(options, node.get(), &report), &report);
  fprintf(stderr, "cube-bench: files and disk\n");
  Note("files and disk", MeasureThroughput(options, node.get(), &report), &report);
  fprintf(stderr, "cube-bench: HTTP\n");
  Note("HTTP", MeasureApi(options, node.get(), &report), &report);
  fprintf(stderr, "cube-bench: what a machine costs\n");
  Note("overhead", MeasureOverhead(options, node.get(), &report), &report);
  fprintf(stderr, "cube-bench: the network\n");
  Note("the network", MeasureNetwork(options, node->folder(), &report), &report);
  fprintf(stderr, "cube-bench: density\n");
  Note("density", MeasureDensity(node.get(), &report), &report);
  node.reset();
  fprintf(stderr, "cube-bench: boots\n");
  Note("boots", MeasureBoots(options, &report), &report);

  End(watch, &meter, &report);
  report.claims = Decide(report);
  return report;
}

Result<Report> RunApi(const TrialOptions& options) {
  Stopwatch watch;
  NoiseMeter meter;
  CUBE_ASSIGN(Report report, Begin("Cube: the HTTP endpoint", options, &meter));
  CUBE_ASSIGN(std::unique_ptr<TrialNode> node, TrialNode::Make(options));
  CUBE_TRY(node->Start(kApiPool));
  CUBE_TRY(MeasureApi(options, node.get(), &report));
  End(watch, &meter, &report);
  return report;
}

Result<Report> RunChurn(const TrialOptions& options, double minutes, double per_second) {
  Stopwatch watch;
  NoiseMeter meter;
  CUBE_ASSIGN(Report report, Begin("Cube: creates and kills over time", options, &meter));
  CUBE_ASSIGN(std::unique_ptr<TrialNode> node, TrialNode::Make(options));
  CUBE_TRY(node->Start(kChurnPool));
  CUBE_TRY(MeasureChurn(node.get(), minutes * 60, per_second, &report));
  End(watch, &meter, &report);
  return report;
}

}  // namespace cube::bench
