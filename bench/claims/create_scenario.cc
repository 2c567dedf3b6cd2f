#include "bench/claims/create_scenario.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <mutex>
#include <random>
#include <thread>

#include "base/unique_fd.h"
#include "bench/claims/child.h"
#include "bench/claims/guest_command.h"
#include "bench/claims/stopwatch.h"
#include "bench/claims/together.h"
#include "bench/report/statistics.h"

namespace cube::bench {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kWarmUp = 3;
constexpr double kCreatesPerSecond = 20;
constexpr uint64_t kBursts[] = {1, 10, 20, 50, 100};

Measurement Named(const char* name, const char* note = "", bool is_peer = false) {
  return {kCreateGroup, name, "ms", {}, note, true, is_peer};
}

// A create, and a command in it that says a number nobody knew before; both times count from the
// request.
Status CreateAndRun(TrialClient* client, const std::string& template_name, std::mt19937_64* random,
                    double* ready_ms, double* output_ms, bool* was_parked) {
  const std::string number = std::to_string((*random)());
  Stopwatch watch;
  CUBE_ASSIGN(TrialSandbox sandbox, client->Create(template_name));
  *ready_ms = watch.Ms();
  CUBE_ASSIGN(std::string output, RunInGuest(sandbox.vsock, {"/bin/echo", number}));
  *output_ms = watch.Ms();
  *was_parked = sandbox.was_parked;
  if (output != number + "\n") {
    return Errorf("the guest said \"%.64s\", not %s", output.c_str(), number.c_str());
  }
  return client->Kill(sandbox.id);
}

// So many creates at once: the time of each, and until the last; adds those without a parked clone.
Status Burst(const TrialNode& node, const std::string& template_name, uint64_t count,
             std::vector<double>* each, double* all_ms, uint64_t* unparked) {
  std::vector<std::string> ids;
  {
    Together together(count);
    Stopwatch watch;
    for (uint64_t i = 0; i < count; ++i) {
      together.Add([&] { return node.Connect(); },
                   [&](TrialClient* client) -> Status {
                     CUBE_ASSIGN(TrialSandbox sandbox, client->Create(template_name));
                     double ms = watch.Ms();
                     std::lock_guard<std::mutex> guard(*together.mutex());
                     each->push_back(ms);
                     ids.push_back(sandbox.id);
                     *unparked += !sandbox.was_parked;
                     return OkStatus();
                   });
    }
    watch = Stopwatch();
    together.LetGo();
    CUBE_TRY(together.Join());
    *all_ms = *std::max_element(each->begin(), each->end());
  }
  CUBE_ASSIGN(TrialClient client, node.Connect());
  for (const std::string& id : ids) CUBE_TRY(client.Kill(id));
  return OkStatus();
}

// Takes a file out of the page cache.
void Evict(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return;
  fdatasync(fd.get());
  posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED);
}

}  // namespace

Status MeasureColdClones(const TrialOptions& options, const TrialNode& node, Report* report) {
  Measurement warm = Named("a process's clone up to the end of /bin/true, all in the page cache");
  Measurement cold =
      Named("a process's clone up to the end of /bin/true, nothing in the page cache");
  for (uint64_t round = 0; round < 1 + options.Rounds(5); ++round) {
    for (Measurement* each : {&warm, &cold}) {
      if (each == &cold) {
        std::error_code failed;
        for (fs::recursive_directory_iterator at(node.folder() + "/templates", failed), end;
             !failed && at != end; at.increment(failed)) {
          if (at->is_regular_file(failed)) Evict(at->path());
        }
        Evict(options.rootfs);
      }
      CUBE_ASSIGN(ChildRun run, RunChildWell({options.vmm, "clone", TrialNode::kCold, "--vsock",
                                              node.folder() + "/clone.vsock", "--", "/bin/true"},
                                             {"CUBE_HOME=" + node.folder()}));
      if (round > 0) each->samples.push_back(run.ms);
    }
  }
  report->measurements.push_back(std::move(warm));
  report->measurements.push_back(std::move(cold));
  return OkStatus();
}

Status MeasureCreates(const TrialOptions& options, TrialNode* node, Report* report) {
  CUBE_ASSIGN(TrialClient client, node->Connect());
  Measurement ready = Named(kWarmReady),
              output = Named(kWarmOutput, "/bin/echo of a random number");
  Measurement cold_ready = Named("to READY, no parked clone");
  Measurement cold_output = Named("to the first command's output, no parked clone");
  Measurement process =
      Named("a process: /bin/true", "fork, exec and exit; nothing is kept apart", true);
  Measurement spaces =
      Named("namespaces: unshare ... /bin/true",
            "user, mount, PID, network, IPC and UTS; the host's kernel is shared", true);
  Measurement bubble =
      Named("bubblewrap: bwrap ... /bin/true",
            "the same namespaces, a read-only root; the host's kernel is shared", true);
  const bool has_bubblewrap = HasProgram("bwrap");
  if (!has_bubblewrap) report->warnings.push_back("no bwrap: bubblewrap was not measured");
  const bool has_unshare = HasProgram("unshare");
  if (!has_unshare) report->warnings.push_back("no unshare: namespaces were not measured");
  std::mt19937_64 random{std::random_device()()};
  uint64_t unparked = 0;
  for (uint64_t round = 0; round < kWarmUp + options.Rounds(40); ++round) {
    double ready_ms = 0, output_ms = 0, cold_ready_ms = 0, cold_output_ms = 0;
    bool was_parked = false, ignored = false;
    CUBE_TRY(node->AwaitPool());
    CUBE_TRY(CreateAndRun(&client, TrialNode::kWarm, &random, &ready_ms, &output_ms, &was_parked));
    CUBE_TRY(node->AwaitPool());
    CUBE_TRY(CreateAndRun(&client, TrialNode::kCold, &random, &cold_ready_ms, &cold_output_ms,
                          &ignored));
    CUBE_ASSIGN(ChildRun one, RunChildWell({"/bin/true"}));
    ChildRun other;
    if (has_unshare) {
      CUBE_ASSIGN(other, RunChildWell({"unshare", "--user", "--map-root-user", "--mount", "--pid",
                                       "--net", "--ipc", "--uts", "--fork", "/bin/true"}));
    }
    ChildRun wrapped;
    if (has_bubblewrap) {
      CUBE_ASSIGN(wrapped, RunChildWell({"bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc",
                                         "/proc", "--dev", "/dev", "/bin/true"}));
    }
    if (round < kWarmUp) continue;
    if (was_parked) {
      ready.samples.push_back(ready_ms);
      output.samples.push_back(output_ms);
    } else {
      ++unparked;
    }
    cold_ready.samples.push_back(cold_ready_ms);
    cold_output.samples.push_back(cold_output_ms);
    process.samples.push_back(one.ms);
    if (has_unshare) spaces.samples.push_back(other.ms);
    if (has_bubblewrap) bubble.samples.push_back(wrapped.ms);
  }
  if (unparked != 0) {
    report->warnings.push_back(Format("%llu creates found no parked clone and are left out",
                                      static_cast<unsigned long long>(unparked)));
  }
  for (Measurement* each :
       {&ready, &output, &cold_ready, &cold_output, &process, &spaces, &bubble}) {
    if (!each->samples.empty()) report->measurements.push_back(std::move(*each));
  }
  return OkStatus();
}

Status MeasureOpenLoop(const TrialOptions& options, TrialNode* node, Report* report) {
  CUBE_TRY(node->AwaitPool());
  Measurement open = Named("to READY, 20 a second at random moments",
                           "timed from when each was due, parked clone or not");
  const uint64_t count = options.Rounds(100);
  std::mt19937_64 random{std::random_device()()};
  std::exponential_distribution<double> gap(kCreatesPerSecond);
  {
    using Clock = std::chrono::steady_clock;
    Together together(count);
    std::atomic<Clock::time_point> start = Clock::now();
    double due = 0;
    for (uint64_t i = 0; i < count; ++i) {
      due += gap(random);
      together.Add([&] { return node->Connect(); },
                   [&, due](TrialClient* client) -> Status {
                     auto at = start.load() + std::chrono::duration_cast<Clock::duration>(
                                                  std::chrono::duration<double>(due));
                     std::this_thread::sleep_until(at);
                     CUBE_ASSIGN(TrialSandbox sandbox, client->Create(TrialNode::kWarm));
                     double ms =
                         std::chrono::duration<double, std::milli>(Clock::now() - at).count();
                     {
                       std::lock_guard<std::mutex> guard(*together.mutex());
                       open.samples.push_back(ms);
                     }
                     return client->Kill(sandbox.id);
                   });
    }
    start = Clock::now();
    together.LetGo();
    CUBE_TRY(together.Join());
  }
  report->measurements.push_back(std::move(open));
  return OkStatus();
}

Status MeasureBursts(const TrialOptions& options, TrialNode* node, Report* report) {
  for (const char* name : {TrialNode::kWarm, TrialNode::kCold}) {
    const std::string kind = name == TrialNode::kWarm ? "parked" : "not parked";
    Curve all = {kAtOnce, kAllReady + (", " + kind), "creates at once", "ms", {}, false};
    Curve median = {kAtOnce, "median of each, " + kind, "creates at once", "ms", {}, false};
    for (uint64_t count : kBursts) {
      Measurement whole = {
          kAtOnce,
          Format("%llu, %s, %s", static_cast<unsigned long long>(count), kAllReady, kind.c_str()),
          "ms"};
      Measurement one = {
          kAtOnce, Format("%llu, each, %s", static_cast<unsigned long long>(count), kind.c_str()),
          "ms"};
      uint64_t unparked = 0;
      for (uint64_t round = 0; round < options.Rounds(count >= 50 ? 3 : 5); ++round) {
        CUBE_TRY(node->AwaitPool());
        std::vector<double> each;
        double all_ms = 0;
        CUBE_TRY(Burst(*node, name, count, &each, &all_ms, &unparked));
        whole.samples.push_back(all_ms);
        one.samples.insert(one.samples.end(), each.begin(), each.end());
      }
      if (unparked != 0 && name == TrialNode::kWarm) {
        report->warnings.push_back(
            Format("%llu creates of bursts of %llu found no parked clone, with a pool that was full",
                   static_cast<unsigned long long>(unparked),
                   static_cast<unsigned long long>(count)));
      }
      const auto x = static_cast<double>(count);
      all.points.push_back({x, Summarise(whole.samples).p50});
      median.points.push_back({x, Summarise(one.samples).p50});
      report->measurements.push_back(std::move(whole));
      report->measurements.push_back(std::move(one));
    }
    report->curves.push_back(std::move(all));
    report->curves.push_back(std::move(median));
  }
  return OkStatus();
}

}  // namespace cube::bench
