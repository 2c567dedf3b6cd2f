#include "api/node_api.h"

#include <spdlog/spdlog.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "api/fields.h"
#include "base/byte_io.h"

namespace cube::api {
namespace {

using pool::Fault;
using pool::Refuse;

constexpr uint64_t kMiB = 1 << 20;
constexpr size_t kMaxProc = 1 << 20;

// The value of the first "NAME : VALUE" of /proc/cpuinfo.
std::string CpuField(const std::string& text, const std::string& name) {
  for (size_t place = 0; place < text.size();) {
    size_t end = std::min(text.find('\n', place), text.size());
    std::string line = text.substr(place, end - place);
    place = end + 1;
    size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    if (line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1) != name) continue;
    size_t value = line.find_first_not_of(' ', colon + 1);
    return value == std::string::npos ? "" : line.substr(value);
  }
  return "";
}

void AddMachine(JsonWriter* json) {
  auto text = ReadSmallFile("/proc/cpuinfo", kMaxProc);
  const std::string about = text.ok() ? *text : "";
  utsname system = {};
  uname(&system);
  json->Key("machineInfo").BeginObject();
  json->Key("cpuFamily").String(CpuField(about, "cpu family"));
  json->Key("cpuModel").String(CpuField(about, "model"));
  json->Key("cpuModelName").String(CpuField(about, "model name"));
  json->Key("cpuArchitecture").String(system.machine).EndObject();
}

// A file system as /proc/self/mountinfo tells of it.
struct Mount {
  std::string place, device, type;
};

// The one that has `path`: the longest name that it begins with.
Mount MountOf(const std::string& path) {
  auto text = ReadSmallFile("/proc/self/mountinfo", kMaxProc);
  Mount found;
  const std::string all = text.ok() ? *text : "";
  for (size_t begin = 0; begin < all.size();) {
    size_t end = std::min(all.find('\n', begin), all.size());
    std::vector<std::string> words;
    for (size_t word = begin; word < end;) {
      size_t next = std::min(all.find(' ', word), end);
      words.push_back(all.substr(word, next - word));
      word = next + 1;
    }
    begin = end + 1;
    auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 5 || words.end() - dash < 3) continue;
    const std::string& place = words[4];
    bool is_above = place == "/" || path == place || path.starts_with(place + "/");
    if (is_above && place.size() >= found.place.size()) found = {place, dash[2], dash[1]};
  }
  return found;
}

void AddDisk(const std::string& home, JsonWriter* json) {
  struct statvfs about = {};
  if (statvfs(home.c_str(), &about) < 0) return;
  Mount mount = MountOf(home);
  uint64_t total = uint64_t{about.f_blocks} * about.f_frsize;
  uint64_t left = uint64_t{about.f_bfree} * about.f_frsize;
  json->BeginObject().Key("mountPoint").String(mount.place).Key("device").String(mount.device);
  json->Key("filesystemType").String(mount.type).Key("usedBytes").Uint(total - left);
  json->Key("totalBytes").Uint(total).EndObject();
}

}  // namespace

void NodeApi::AddTo(Router* router) {
  router->Add("GET", "/nodes", [this](Shared) -> Task<Answer> { return List(); });
  router->Add("GET", "/nodes/{nodeID}", [this](Shared c) -> Task<Answer> { return Info(c); });
  router->Add("POST", "/nodes/{nodeID}", [this](Shared c) -> Task<Answer> { return SetStatus(c); });
}

pool::Outcome<pool::Done> NodeApi::CheckId(const Call& call) const {
  const std::string& id = call.path.at("nodeID");
  if (id == id_) return pool::Done();
  return Refuse(Fault::kNotFound, "node \"%.64s\" not found", id.c_str());
}

void NodeApi::AddMetrics(JsonWriter* json) {
  ProcessorTime now;
  auto text = ReadSmallFile("/proc/stat", kMaxProc);
  if (text.ok()) {
    // "cpu  user nice system idle iowait irq softirq steal": the sum of all processors.
    char* end = text->data() + std::min<size_t>(text->size(), 4);
    for (int i = 0; i < 8; ++i) {
      uint64_t ticks = strtoull(end, &end, 10);
      now.all += ticks;
      if (i == 3 || i == 4) now.idle += ticks;
    }
  }
  uint64_t all = now.all - before_.all, idle = now.idle - before_.idle;
  before_ = now;
  pool::Capacity& capacity = node_->context().capacity;
  const pool::HostResources& host = capacity.host();
  json->Key("metrics").BeginObject();
  json->Key("allocatedCPU").Uint(capacity.counters().cpus);
  json->Key("allocatedMemoryBytes").Uint(capacity.counters().memory_mib * kMiB);
  json->Key("cpuPercent").Uint(all == 0 || idle > all ? 0 : (all - idle) * 100 / all);
  json->Key("cpuCount").Uint(host.cpus);
  json->Key("memoryUsedBytes").Uint((host.total_mib - host.available_mib) * kMiB);
  json->Key("memoryTotalBytes").Uint(host.total_mib * kMiB);
  json->Key("disks").BeginArray();
  AddDisk(node_->context().config.home, json);
  json->EndArray().EndObject();
}

void NodeApi::AddCommon(JsonWriter* json) {
  uint64_t running = 0;
  for (const auto& [id, sandbox] : node_->sandboxes()) {
    running += sandbox->state() == pool::SandboxState::kRunning;
  }
  json->Key("id").String(id_).Key("serviceInstanceID").String(service_);
  json->Key("clusterID").String(id_).Key("status").String(Status());
  json->Key("version").String("0.1").Key("commit").String("");
  json->Key("sandboxCount").Uint(running).Key("createSuccesses").Uint(node_->creates());
  json->Key("createFails").Uint(node_->failed_creates());
  AddMachine(json);
  AddMetrics(json);
}

Task<Answer> NodeApi::List() {
  JsonWriter json;
  AddCommon(&json.BeginArray().BeginObject());
  uint64_t starting = 0;
  for (const auto& [id, sandbox] : node_->sandboxes()) {
    starting += sandbox->state() == pool::SandboxState::kCreating;
  }
  json.Key("sandboxStartingCount").Uint(starting);
  co_return Reply::Json(200, json.EndObject().EndArray().text());
}

Task<Answer> NodeApi::Info(Shared call) {
  POOL_CO_TRY(CheckId(*call));
  JsonWriter json;
  AddCommon(&json.BeginObject());
  json.Key("cachedBuilds").BeginArray();
  for (const auto& [name, entry] : node_->registry().entries()) json.String(name);
  co_return Reply::Json(200, json.EndArray().EndObject().text());
}

Task<void> NodeApi::Drain() {
  auto drained = co_await node_->Drain(false);
  if (!drained.ok()) spdlog::error("draining: {}", drained.refusal().message);
}

// A node that drains does so until cubed is started again.
Task<Answer> NodeApi::SetStatus(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<std::string> status, cluster;
  fields.Text("status", &status, 32);
  fields.Text("clusterID", &cluster, 64);
  if (!status) fields.Fail("status", "is missing");
  if (status && *status != "ready" && *status != "draining") {
    fields.Fail("status", "is not ready or draining");
  }
  POOL_CO_TRY(fields.Check());
  POOL_CO_TRY(CheckId(*call));
  if (*status == Status()) co_return Reply::Nothing();
  if (node_->draining()) {
    co_return Refuse(Fault::kConflict, "the node is being drained until cubed is started again");
  }
  pool::Spawn(node_->context().io, Drain());
  co_return Reply::Nothing();
}

}  // namespace cube::api
