#include "api/observation_api.h"

#include <algorithm>

#include "api/date_text.h"
#include "api/sandbox_answers.h"
#include "pool/sandbox_log_reader.h"

namespace cube::api {
namespace {

using pool::Fault;
using pool::Outcome;
using pool::Refuse;
using pool::Sandbox;

constexpr int64_t kFarSeconds = int64_t{1} << 40;
constexpr size_t kMaxIds = 100;
constexpr uint64_t kMaxLog = 256 * 1024;
constexpr int64_t kMaxLines = 1000;

void AddSample(const SandboxSample& sample, uint32_t cpus, JsonWriter* json) {
  json->BeginObject().Key("timestamp").String(DateText(sample.time_ms));
  json->Key("timestampUnix").Int(sample.time_ms / 1000).Key("cpuCount").Uint(cpus);
  json->Key("cpuUsedPct").Double(sample.cpu_percent).Key("memUsed").Uint(sample.memory_used);
  json->Key("memTotal").Uint(sample.memory_total).Key("memCache").Uint(sample.memory_cache);
  json->Key("diskUsed").Uint(sample.disk_used).Key("diskTotal").Uint(sample.disk_total);
  json->EndObject();
}

Outcome<std::shared_ptr<Sandbox>> FindShown(const pool::Node& node, const Call& call) {
  const std::string& id = call.path.at("sandboxID");
  auto found = node.Find(id);
  if (found.ok() && IsShown(found.value()->state())) return found;
  return Refuse(Fault::kNotFound, "sandbox \"%.64s\" not found", id.c_str());
}

// A line of a sandbox's log. They have no times of their own: they count up from its start.
struct LogLine {
  int64_t time_ms;
  std::string text;
  const char* level;
};

Outcome<std::vector<LogLine>> LinesOf(pool::Node* node, const Sandbox& sandbox) {
  std::string path = node->context().launcher->LogPath(sandbox.id());
  POOL_ASSIGN(pool::LogPiece piece, pool::ReadSandboxLog(path, "", kMaxLog));
  std::vector<LogLine> lines;
  int64_t time = sandbox.record().created_ms;
  for (size_t place = 0; place < piece.text.size();) {
    size_t end = std::min(piece.text.find('\n', place), piece.text.size());
    std::string text = piece.text.substr(place, end - place);
    bool is_error = text.find("error") != std::string::npos || text.starts_with("cube-vmm: ");
    if (!text.empty()) lines.push_back({time++, std::move(text), is_error ? "error" : "info"});
    place = end + 1;
  }
  return lines;
}

void AddEntry(const LogLine& line, const std::string& id, JsonWriter* json) {
  json->BeginObject().Key("timestamp").String(DateText(line.time_ms));
  json->Key("level").String(line.level).Key("message").String(line.text);
  json->Key("fields").BeginObject().Key("sandboxID").String(id).EndObject().EndObject();
}

}  // namespace

void ObservationApi::AddTo(Router* router) {
  router_ = router;
  router->Add("GET", "/metrics", [this](Shared) -> Task<Answer> { return Prometheus(); });
  router->Add("GET", "/sandboxes/metrics",
              [this](Shared call) -> Task<Answer> { return MetricsOfMany(call); });
  router->Add("GET", "/sandboxes/{sandboxID}/metrics",
              [this](Shared call) -> Task<Answer> { return Metrics(call); });
  router->Add("GET", "/sandboxes/{sandboxID}/logs",
              [this](Shared call) -> Task<Answer> { return Logs(call); });
  router->Add("GET", "/v2/sandboxes/{sandboxID}/logs",
              [this](Shared call) -> Task<Answer> { return LogsVersionTwo(call); });
  router->Add(
      "GET", "/health", [this](Shared) -> Task<Answer> { return Health(); }, Access::kPublic);
  router->Add(
      "GET", "/ready", [this](Shared) -> Task<Answer> { return Ready(); }, Access::kPublic);
}

void ObservationApi::CountCreate(unsigned status, double ms) {
  if (status != 201) return;
  size_t bucket = 0;
  for (double limit = 1; bucket + 1 < kBuckets && ms > limit; limit *= 2) ++bucket;
  ++creates_[bucket];
  create_ms_ += ms;
}

// Prometheus' text format, version 0.0.4.
Task<Answer> ObservationApi::Prometheus() {
  constexpr pool::SandboxState kStates[] = {pool::SandboxState::kRunning,
                                            pool::SandboxState::kPaused, pool::SandboxState::kDead};
  std::string text;
  auto head = [&](const char* name, const char* type, const char* help) {
    text += Format("# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
  };
  auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  head("cube_sandboxes", "gauge", "Sandboxes by state.");
  for (pool::SandboxState state : kStates) {
    uint64_t count = 0;
    for (const auto& [id, sandbox] : node_->sandboxes()) count += sandbox->state() == state;
    text += Format("cube_sandboxes{state=\"%s\"} %llu\n", pool::StateName(state), number(count));
  }
  head("cube_creates_total", "counter", "Sandboxes that were created.");
  text += Format("cube_creates_total %llu\n", number(node_->creates()));
  head("cube_failed_creates_total", "counter", "Creates that came to nothing on the node.");
  text += Format("cube_failed_creates_total %llu\n", number(node_->failed_creates()));
  head("cube_create_seconds", "histogram", "Time of creates over HTTP.");
  uint64_t sum = 0;
  for (size_t i = 0; i + 1 < kBuckets; ++i) {
    sum += creates_[i];
    text += Format("cube_create_seconds_bucket{le=\"%g\"} %llu\n",
                   static_cast<double>(1u << i) / 1000, number(sum));
  }
  sum += creates_[kBuckets - 1];
  text += Format("cube_create_seconds_bucket{le=\"+Inf\"} %llu\ncube_create_seconds_sum %g\n",
                 number(sum), create_ms_ / 1000);
  text += Format("cube_create_seconds_count %llu\n", number(sum));
  head("cube_pool_parked", "gauge", "Clones that are ready to be handed out.");
  // A template's name has no character that would need an escape here.
  for (const auto& [name, state] : node_->templates()) {
    text += Format("cube_pool_parked{template=\"%s\"} %zu\n", name.c_str(), state.pool->parked());
  }
  head("cube_pool_takes_total", "counter", "Creates by whether a clone was parked.");
  for (const auto& [name, state] : node_->templates()) {
    const auto& counted = state.pool->statistics();
    text += Format("cube_pool_takes_total{template=\"%s\",parked=\"yes\"} %llu\n", name.c_str(),
                   number(counted.hits));
    text += Format("cube_pool_takes_total{template=\"%s\",parked=\"no\"} %llu\n", name.c_str(),
                   number(counted.misses));
  }
  head("cube_http_answers_total", "counter", "Answers of the control plane by status.");
  for (const auto& [status, count] : router_->answers()) {
    text += Format("cube_http_answers_total{status=\"%u\"} %llu\n", status, number(count));
  }
  Reply reply = Reply::Json(200, std::move(text));
  reply.content_type = "text/plain; version=0.0.4";
  co_return reply;
}

Task<Answer> ObservationApi::Health() { co_return Reply::Json(200, "{\"status\":\"ok\"}"); }

// Whether a create may succeed.
Task<Answer> ObservationApi::Ready() {
  if (node_->draining()) co_return Reply::Error(503, "the node is being drained");
  size_t usable = 0;
  for (const auto& [name, entry] : node_->registry().entries()) usable += entry.error.empty();
  if (usable == 0) co_return Reply::Error(503, "there is no template");
  co_return Reply::Json(200, "{\"status\":\"ready\"}");
}

Task<Answer> ObservationApi::Metrics(Shared call) {
  POOL_CO_ASSIGN(std::optional<int64_t> start, call->QueryWhole("start", 0, kFarSeconds));
  POOL_CO_ASSIGN(std::optional<int64_t> end, call->QueryWhole("end", 0, kFarSeconds));
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, FindShown(*node_, *call));
  if (start && end && *start > *end) {
    co_return Refuse(Fault::kInvalid, "\"start\" is after \"end\"");
  }
  auto samples =
      co_await sampler_->Read(sandbox, start.value_or(0) * 1000, end.value_or(kFarSeconds) * 1000);
  JsonWriter json;
  json.BeginArray();
  for (const auto& sample : samples) AddSample(sample, sandbox->record().cpus, &json);
  co_return Reply::Json(200, json.EndArray().text());
}

Task<Answer> ObservationApi::MetricsOfMany(Shared call) {
  auto ids = call->Query("sandbox_ids");
  if (!ids || ids->empty()) co_return Refuse(Fault::kInvalid, "\"sandbox_ids\" is missing");
  if (static_cast<size_t>(std::count(ids->begin(), ids->end(), ',')) >= kMaxIds) {
    co_return Refuse(Fault::kInvalid, "\"sandbox_ids\" has more than %zu ids", kMaxIds);
  }
  JsonWriter json;
  json.BeginObject().Key("sandboxes").BeginObject();
  for (size_t place = 0; place <= ids->size();) {
    size_t end = std::min(ids->find(',', place), ids->size());
    auto found = node_->Find(ids->substr(place, end - place));
    place = end + 1;
    if (!found.ok() || !IsShown(found.value()->state())) continue;
    SandboxSample sample = sampler_->Last(found.value()->id());
    if (sample.time_ms == 0) {
      int64_t now = pool::WallClockMs();
      auto samples = co_await sampler_->Read(*found, now - 1000, now + 1000);
      if (samples.empty()) continue;
      sample = samples.back();
    }
    json.Key(found.value()->id());
    AddSample(sample, found.value()->record().cpus, &json);
  }
  co_return Reply::Json(200, json.EndObject().EndObject().text());
}

Task<Answer> ObservationApi::Logs(Shared call) {
  POOL_CO_ASSIGN(std::optional<int64_t> start, call->QueryWhole("start", 0, INT64_MAX));
  POOL_CO_ASSIGN(std::optional<int64_t> limit, call->QueryWhole("limit", 0, kMaxLines));
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, FindShown(*node_, *call));
  POOL_CO_ASSIGN(std::vector<LogLine> lines, LinesOf(node_, *sandbox));
  if (start) std::erase_if(lines, [&](const LogLine& line) { return line.time_ms < *start; });
  size_t shown = std::min(lines.size(), static_cast<size_t>(limit.value_or(kMaxLines)));
  JsonWriter json;
  json.BeginObject().Key("logs").BeginArray();
  for (size_t i = 0; i < shown; ++i) {
    json.BeginObject().Key("timestamp").String(DateText(lines[i].time_ms));
    json.Key("line").String(lines[i].text).EndObject();
  }
  json.EndArray().Key("logEntries").BeginArray();
  for (size_t i = 0; i < shown; ++i) AddEntry(lines[i], sandbox->id(), &json);
  co_return Reply::Json(200, json.EndArray().EndObject().text());
}

Task<Answer> ObservationApi::LogsVersionTwo(Shared call) {
  POOL_CO_ASSIGN(std::optional<int64_t> cursor, call->QueryWhole("cursor", 0, INT64_MAX));
  POOL_CO_ASSIGN(std::optional<int64_t> limit, call->QueryWhole("limit", 0, kMaxLines));
  POOL_CO_ASSIGN(std::string direction, call->QueryWord("direction", {"forward", "backward"}));
  POOL_CO_ASSIGN(std::string level,
                 call->QueryWord("level", {"", "debug", "info", "warn", "error"}));
  std::string search = call->Query("search").value_or("");
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, FindShown(*node_, *call));
  POOL_CO_ASSIGN(std::vector<LogLine> lines, LinesOf(node_, *sandbox));
  bool backward = direction == "backward";
  if (backward) std::reverse(lines.begin(), lines.end());
  bool errors_only = level == "warn" || level == "error";
  std::erase_if(lines, [&](const LogLine& line) {
    if (cursor && (backward ? line.time_ms > *cursor : line.time_ms < *cursor)) return true;
    if (errors_only && std::string_view(line.level) != "error") return true;
    return !search.empty() && line.text.find(search) == std::string::npos;
  });
  size_t shown = std::min(lines.size(), static_cast<size_t>(limit.value_or(kMaxLines)));
  JsonWriter json;
  json.BeginObject().Key("logs").BeginArray();
  for (size_t i = 0; i < shown; ++i) AddEntry(lines[i], sandbox->id(), &json);
  co_return Reply::Json(200, json.EndArray().EndObject().text());
}

}  // namespace cube::api
