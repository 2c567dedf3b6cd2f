#include "bench/claims/churn_scenario.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <mutex>
#include <random>
#include <thread>

#include "bench/claims/guest_command.h"
#include "bench/claims/host.h"
#include "bench/report/statistics.h"

namespace cube::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kGroup[] = "churn";
constexpr size_t kParts = 10;
constexpr size_t kWorkers = 16;

double Seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

// Work that is due at its moment, and those who do it.
class Churn {
 public:
  Churn(const TrialNode& node, std::vector<double> due)
      : node_(node), due_(std::move(due)), parts_(kParts) {}

  Status Run(double seconds) {
    start_ = Clock::now();
    seconds_ = seconds;
    std::vector<std::thread> workers;
    for (size_t i = 0; i < kWorkers; ++i) {
      workers.emplace_back([this] {
        Status status = Work();
        if (status.ok()) return;
        std::lock_guard<std::mutex> guard(mutex_);
        if (first_.ok()) first_ = status;
      });
    }
    for (std::thread& worker : workers) worker.join();
    return first_;
  }
  const std::vector<std::vector<double>>& parts() const { return parts_; }

 private:
  Status Work() {
    CUBE_ASSIGN(TrialClient client, node_.Connect());
    for (;;) {
      size_t number;
      {
        std::lock_guard<std::mutex> guard(mutex_);
        if (next_ == due_.size() || !first_.ok()) return OkStatus();
        number = next_++;
      }
      auto at = start_ + std::chrono::duration_cast<Clock::duration>(
                             std::chrono::duration<double>(due_[number]));
      std::this_thread::sleep_until(at);
      CUBE_ASSIGN(TrialSandbox sandbox, client.Create(TrialNode::kWarm));
      double ms = Seconds(Clock::now() - at) * 1000;
      CUBE_ASSIGN(std::string output,
                  RunInGuest(sandbox.vsock, {"/bin/echo", std::to_string(number)}));
      if (output != std::to_string(number) + "\n") return Errorf("a guest said something else");
      CUBE_TRY(client.Kill(sandbox.id));
      std::lock_guard<std::mutex> guard(mutex_);
      auto part = static_cast<size_t>(due_[number] / seconds_ * kParts);
      parts_[std::min(part, kParts - 1)].push_back(ms);
    }
  }

  const TrialNode& node_;
  std::vector<double> due_;
  Clock::time_point start_;
  double seconds_ = 0;
  std::mutex mutex_;
  size_t next_ = 0;
  Status first_;
  std::vector<std::vector<double>> parts_;
};

double DescriptorsOf(pid_t pid) {
  std::error_code failed;
  std::filesystem::directory_iterator at("/proc/" + std::to_string(pid) + "/fd", failed), end;
  double count = 0;
  for (; !failed && at != end; at.increment(failed)) ++count;
  return count;
}

}  // namespace

Status MeasureChurn(TrialNode* node, double seconds, double per_second, Report* report) {
  CUBE_TRY(node->AwaitPool());
  std::mt19937_64 random{std::random_device()()};
  std::exponential_distribution<double> gap(per_second);
  std::vector<double> due;
  for (double at = gap(random); at < seconds; at += gap(random)) due.push_back(at);

  Curve latency = {kGroup, "create to READY, median", "seconds", "ms", {}, false};
  Curve tail = {kGroup, "create to READY, p99", "seconds", "ms", {}, false};
  Curve available = {"churn: memory", "MemAvailable since the start", "seconds", "KiB", {}, false};
  Curve daemon = {"churn: memory", "cubed, PSS", "seconds", "KiB", {}, false};
  Curve descriptors = {"churn: descriptors", "cubed's", "seconds", "count", {}, false};

  Churn churn(*node, std::move(due));
  Status status;
  std::thread driver([&] { status = churn.Run(seconds); });
  const auto start = Clock::now();
  const int64_t before = MemoryOfHost()["MemAvailable"];
  const double part = seconds / kParts;
  for (size_t i = 1; i <= kParts; ++i) {
    const double at = part * static_cast<double>(i);
    std::this_thread::sleep_until(
        start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(at)));
    available.points.push_back({at, static_cast<double>(MemoryOfHost()["MemAvailable"] - before)});
    auto memory = MemoryOfProcess(node->pid());
    if (memory.ok()) daemon.points.push_back({at, static_cast<double>(memory->pss)});
    descriptors.points.push_back({at, DescriptorsOf(node->pid())});
  }
  driver.join();
  CUBE_TRY(status);
  for (size_t i = 0; i < kParts; ++i) {
    Summary summary = Summarise(churn.parts()[i]);
    const double at = part * static_cast<double>(i + 1);
    latency.points.push_back({at, summary.p50});
    tail.points.push_back({at, summary.p99});
    report->measurements.push_back(
        {kGroup, Format("to READY, up to second %.0f", at), "ms", churn.parts()[i]});
  }
  Interval drift = RatioInterval(churn.parts()[1], churn.parts()[kParts - 1]);
  report->machine.push_back({"drift of creates, last part to second, 95 % sure",
                             Format("%.2f to %.2f", drift.low, drift.high)});
  for (Curve* each : {&latency, &tail, &available, &daemon, &descriptors}) {
    report->curves.push_back(std::move(*each));
  }
  return OkStatus();
}

}  // namespace cube::bench
