#include "bench/claims/density_scenario.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <thread>

#include "bench/claims/guest_command.h"
#include "bench/claims/host.h"
#include "bench/claims/stopwatch.h"
#include "bench/report/statistics.h"

namespace cube::bench {
namespace {

constexpr uint64_t kSteps[] = {1, 10, 50, 100, 200, 300};
// What Linux puts off is done by then.
constexpr std::chrono::seconds kIdle(5);
// The host's memory is at rest when so little comes free between so many looks.
constexpr std::chrono::seconds kLook(1);
constexpr int kQuietLooks = 5, kMostLooks = 40;
constexpr int64_t kQuietKib = 512;
constexpr uint64_t kCellSandboxes = 20;
// Of each sandbox, which the smallest machine that this is run on has.
constexpr int64_t kRoomKib = 6 * 1024;
constexpr char kX[] = "live sandboxes", kY[] = "KiB each";

struct Part {
  const char* name;     // as the report has it
  const char* meminfo;  // of the host, or nullptr: of the processes
};
constexpr Part kParts[] = {
    {"the host's MemAvailable", "MemAvailable"}, {"kernel: slab", "Slab"},
    {"kernel: page tables", "PageTables"},       {"kernel: page tables of guests", "SecPageTables"},
    {"kernel: vmalloc", "VmallocUsed"},          {"kernel: stacks", "KernelStack"}};

class Density {
 public:
  Density(TrialClient client, Report* report) : client_(std::move(client)), report_(report) {}

  Status CreateUpTo(uint64_t count, Measurement* times) {
    while (all_.size() < count) {
      Stopwatch watch;
      CUBE_ASSIGN(TrialSandbox sandbox, client_.Create(TrialNode::kCold));
      times->samples.push_back(watch.Ms());
      all_.push_back(std::move(sandbox));
    }
    return OkStatus();
  }

  // What ran before may still be giving its memory back: that would count as the sandboxes' own.
  void Begin() {
    int quiet = 0;
    for (int i = 0; i < kMostLooks && quiet < kQuietLooks; ++i) {
      before_ = MemoryOfHost();
      std::this_thread::sleep_for(kLook);
      const int64_t moved = MemoryOfHost()["MemAvailable"] - before_["MemAvailable"];
      quiet = std::abs(moved) < kQuietKib ? quiet + 1 : 0;
    }
    before_ = MemoryOfHost();
  }

  // What one of them takes, as a point of every curve, or as measurements called `what`.
  Status Count(const std::string& what) {
    std::this_thread::sleep_for(kIdle);
    auto now = MemoryOfHost();
    const auto count = static_cast<double>(all_.size());
    for (const Part& part : kParts) {
      double grown = static_cast<double>(now[part.meminfo] - before_[part.meminfo]) / count;
      if (part.meminfo == std::string("MemAvailable")) grown = -grown;
      Add(part.name, what, {grown});
    }
    std::vector<double> pss, anonymous;
    for (const TrialSandbox& each : all_) {
      CUBE_ASSIGN(ProcessMemory memory, MemoryOfProcess(each.pid));
      pss.push_back(static_cast<double>(memory.pss));
      anonymous.push_back(static_cast<double>(memory.anonymous));
    }
    Add("process: PSS, what it shares in parts", what, pss);
    Add("process: Anonymous, what others may share in full", what, anonymous);
    return OkStatus();
  }

  template <typename Run>
  Status RunInEach(uint64_t count, const Run& run) {
    for (uint64_t i = 0; i < std::min<uint64_t>(count, all_.size()); ++i) {
      auto output = run(all_[i].vsock);
      if (!output.ok()) return output.error();
    }
    return OkStatus();
  }
  Status KillAll() {
    for (const TrialSandbox& each : all_) CUBE_TRY(client_.Kill(each.id));
    all_.clear();
    return OkStatus();
  }
  void Finish() {
    for (auto& [name, curve] : curves_) report_->curves.push_back(std::move(curve));
  }

 private:
  void Add(const std::string& name, const std::string& what, std::vector<double> samples) {
    const double median = Summarise(samples).p50;
    const std::string measured =
        what.empty() ? Format("%s, %zu idle", name.c_str(), all_.size()) : name + ", " + what;
    report_->measurements.push_back({kMemoryGroup, measured, "KiB", std::move(samples)});
    if (!what.empty()) return;
    Curve& curve =
        curves_.try_emplace(name, Curve{kMemoryGroup, name, kX, kY, {}, false}).first->second;
    curve.points.push_back({static_cast<double>(all_.size()), median});
  }

  TrialClient client_;
  Report* report_;
  std::vector<TrialSandbox> all_;
  std::map<std::string, int64_t> before_;
  std::map<std::string, Curve> curves_;
};

}  // namespace

Status MeasureDensity(TrialNode* node, Report* report) {
  CUBE_TRY(node->ResizePool(0));
  CUBE_TRY(node->AwaitPool());
  CUBE_ASSIGN(TrialClient client, node->Connect());
  // The zygote of the template without a pool is there, and has forked.
  CUBE_ASSIGN(TrialSandbox first, client.Create(TrialNode::kCold));
  CUBE_TRY(client.Kill(first.id));
  std::this_thread::sleep_for(kIdle);

  Density density(std::move(client), report);
  density.Begin();
  const uint64_t room = static_cast<uint64_t>(MemoryOfHost()["MemAvailable"] / kRoomKib);
  Curve creates = {
      "creates beside live ones", "to READY, no parked clone, median", kX, "ms", {}, false};
  for (uint64_t count : kSteps) {
    if (count > room) {
      report->warnings.push_back(
          Format("%llu sandboxes have no room here", static_cast<unsigned long long>(count)));
      break;
    }
    Measurement times = {"creates beside live ones",
                         Format("to READY, no parked clone, up to %llu live",
                                static_cast<unsigned long long>(count)),
                         "ms"};
    CUBE_TRY(density.CreateUpTo(count, &times));
    creates.points.push_back({static_cast<double>(count), Summarise(times.samples).p50});
    report->measurements.push_back(std::move(times));
    CUBE_TRY(density.Count(""));
  }
  report->curves.push_back(std::move(creates));
  CUBE_ASSIGN(ProcessMemory daemon, MemoryOfProcess(node->pid()));
  report->measurements.push_back({"memory of the node",
                                  "cubed: PSS, with all of them live",
                                  "KiB",
                                  {static_cast<double>(daemon.pss)}});
  CUBE_TRY(density.KillAll());

  std::this_thread::sleep_for(kIdle);
  density.Begin();
  Measurement unused;
  const uint64_t hundred = std::min<uint64_t>(100, room);
  CUBE_TRY(density.CreateUpTo(hundred, &unused));
  CUBE_TRY(density.RunInEach(hundred, [](const std::string& vsock) {
    return RunInGuest(vsock, {"/bin/echo", "hello"});
  }));
  CUBE_TRY(density.Count(
      Format("%llu after a command in each", static_cast<unsigned long long>(hundred))));
  CUBE_TRY(density.KillAll());

  std::this_thread::sleep_for(kIdle);
  density.Begin();
  CUBE_TRY(density.CreateUpTo(kCellSandboxes, &unused));
  auto cell = density.RunInEach(
      kCellSandboxes, [](const std::string& vsock) { return RunCell(vsock, "print(1)"); });
  if (cell.ok()) {
    CUBE_TRY(density.Count("20 after a cell of Python in each"));
  } else {
    report->warnings.push_back("no cell of Python: " + cell.error().message());
  }
  CUBE_TRY(density.KillAll());
  density.Finish();
  return OkStatus();
}

}  // namespace cube::bench
