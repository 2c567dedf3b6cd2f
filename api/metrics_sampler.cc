#include "api/metrics_sampler.h"

#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/json.hpp>
#include <cstdlib>

#include "api/guest_request.h"
#include "base/byte_io.h"

namespace cube::api {
namespace {

namespace json = boost::json;

constexpr pool::milliseconds kRound(5000);
constexpr uint16_t kEnvdPort = 49983;
constexpr uint64_t kMiB = 1 << 20;
// So many are looked at before others have their turn.
constexpr size_t kSlice = 16;
constexpr int64_t kFreshMs = 1000;

struct ProcessUse {
  double cpu_seconds = 0;
  uint64_t memory_bytes = 0;  // of its own
};

// Cheaper than pool/process_metrics, which counts pages one by one.
std::optional<ProcessUse> Use(pid_t pid) {
  auto stat = ReadSmallFile(Format("/proc/%d/stat", pid));
  auto memory = ReadSmallFile(Format("/proc/%d/statm", pid));
  if (!stat.ok() || !memory.ok()) return std::nullopt;
  // Fields 14 and 15, counted from behind the name.
  size_t place = stat->rfind(')');
  for (int i = 0; i < 12 && place != std::string::npos; ++i) place = stat->find(' ', place + 1);
  if (place == std::string::npos) return std::nullopt;
  char* end = nullptr;
  uint64_t ticks = strtoull(stat->c_str() + place, &end, 10);
  ticks += strtoull(end, nullptr, 10);
  strtoull(memory->c_str(), &end, 10);
  uint64_t resident = strtoull(end, &end, 10), shared = strtoull(end, nullptr, 10);
  ProcessUse use;
  use.cpu_seconds = static_cast<double>(ticks) / static_cast<double>(sysconf(_SC_CLK_TCK));
  auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  use.memory_bytes = resident > shared ? (resident - shared) * page : 0;
  return use;
}

double NumberOf(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr || !value->is_number()) return 0;
  json::error_code failed;
  auto number = value->to_number<double>(failed);
  return failed || !(number >= 0) || number > 1e18 ? 0 : number;
}

}  // namespace

void MetricsSampler::Start() { pool::Spawn(node_->context().io, Run()); }

void MetricsSampler::Stop() {
  stopped_ = true;
  timer_.cancel();
}

pool::Task<void> MetricsSampler::Run() {
  while (co_await pool::Sleep(timer_, kRound)) {
    if (stopped_) co_return;
    LookAtAll();
    std::vector<std::string> ids;
    for (const auto& [id, sandbox] : node_->sandboxes()) ids.push_back(id);
    std::erase_if(histories_, [&](const auto& item) {
      return !std::binary_search(ids.begin(), ids.end(), item.first);
    });
    for (size_t i = 0; i < ids.size(); ++i) {
      if (i % kSlice == kSlice - 1) {
        co_await boost::asio::post(node_->context().io, pool::kAsTuple);
      }
      auto found = node_->sandboxes().find(ids[i]);
      if (found != node_->sandboxes().end()) Look(found->second->record());
    }
  }
}

void MetricsSampler::LookAtAll() {
  NodeSample sample;
  sample.time_ms = pool::WallClockMs();
  for (const auto& [id, sandbox] : node_->sandboxes()) {
    sample.running += sandbox->state() == pool::SandboxState::kRunning;
  }
  uint64_t creates = node_->creates();
  auto seconds = static_cast<double>(kRound.count()) / 1000;
  sample.creates_per_second = static_cast<double>(creates - creates_) / seconds;
  creates_ = creates;
  node_samples_.push_back(sample);
  if (node_samples_.size() > kNodeKept) node_samples_.pop_front();
}

void MetricsSampler::Look(const pool::SandboxRecord& record) {
  if (record.pid <= 0) return;
  auto use = Use(record.pid);
  if (!use) return;
  History& history = histories_[record.id];
  SandboxSample sample;
  sample.time_ms = pool::WallClockMs();
  if (history.pid == record.pid && sample.time_ms > history.time_ms) {
    double seconds = static_cast<double>(sample.time_ms - history.time_ms) / 1000;
    double used = std::max(0.0, use->cpu_seconds - history.cpu_seconds) / seconds;
    sample.cpu_percent = std::min(100.0, used * 100 / std::max(1u, record.cpus));
  }
  history.pid = record.pid;
  history.cpu_seconds = use->cpu_seconds;
  history.time_ms = sample.time_ms;
  sample.memory_total = record.memory_mib * kMiB;
  sample.memory_used = std::min(use->memory_bytes, sample.memory_total);
  sample.memory_cache = history.memory_cache;
  sample.disk_used = history.disk_used;
  sample.disk_total = history.disk_total;
  Add(&history, sample);
}

void MetricsSampler::Add(History* history, SandboxSample sample) {
  history->samples.push_back(sample);
  if (history->samples.size() > kKept) history->samples.pop_front();
}

pool::Task<std::vector<SandboxSample>> MetricsSampler::Read(std::shared_ptr<pool::Sandbox> sandbox,
                                                            int64_t from_ms, int64_t to_ms) {
  pool::SandboxRecord record = sandbox->record();
  int64_t now = pool::WallClockMs();
  const auto& known = histories_[record.id].samples;
  bool is_fresh = !known.empty() && now - known.back().time_ms < kFreshMs;
  bool wants_now = from_ms <= now && now <= to_ms + 1000;
  if (record.state == pool::SandboxState::kRunning && wants_now && !is_fresh) {
    auto text = co_await GetFromGuest(node_->context().io, record.vsock, kEnvdPort, "/metrics",
                                      record.token);
    json::error_code failed;
    json::value value = text.ok() ? json::parse(*text, failed) : json::value();
    if (text.ok() && !failed && value.is_object()) {
      const json::object& object = value.get_object();
      History& history = histories_[record.id];
      SandboxSample sample;
      sample.time_ms = pool::WallClockMs();
      sample.cpu_percent = NumberOf(object, "cpu_used_pct");
      sample.memory_total = static_cast<uint64_t>(NumberOf(object, "mem_total"));
      sample.memory_used = static_cast<uint64_t>(NumberOf(object, "mem_used"));
      history.memory_cache = static_cast<uint64_t>(NumberOf(object, "mem_cache"));
      history.disk_used = static_cast<uint64_t>(NumberOf(object, "disk_used"));
      history.disk_total = static_cast<uint64_t>(NumberOf(object, "disk_total"));
      sample.memory_cache = history.memory_cache;
      sample.disk_used = history.disk_used;
      sample.disk_total = history.disk_total;
      Add(&history, sample);
    } else {
      Look(record);
    }
  }
  std::vector<SandboxSample> samples;
  for (const SandboxSample& sample : histories_[record.id].samples) {
    // Clients name whole seconds.
    if (sample.time_ms >= from_ms && sample.time_ms <= to_ms + 999) samples.push_back(sample);
  }
  co_return samples;
}

const std::deque<SandboxSample>* MetricsSampler::Known(const std::string& id) const {
  auto found = histories_.find(id);
  return found == histories_.end() ? nullptr : &found->second.samples;
}

SandboxSample MetricsSampler::Last(const std::string& id) const {
  auto found = histories_.find(id);
  if (found == histories_.end() || found->second.samples.empty()) return {};
  return found->second.samples.back();
}

}  // namespace cube::api
