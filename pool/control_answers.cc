#include "pool/control_answers.h"

#include <unistd.h>

namespace cube::pool {
namespace {

JsonWriter Begin() {
  JsonWriter json;
  json.BeginObject().Key("ok").Bool(true);
  return json;
}

void AddPool(const std::string& name, const Node::TemplateState& state, JsonWriter* json) {
  const WarmPool& pool = *state.pool;
  const WarmPool::Statistics& counted = pool.statistics();
  json->BeginObject().Key("template").String(name).Key("target").Uint(pool.config().size);
  json->Key("parked").Uint(pool.parked()).Key("being_made").Uint(pool.being_made());
  json->Key("hits").Uint(counted.hits).Key("misses").Uint(counted.misses);
  json->Key("made").Uint(counted.made).Key("failed").Uint(counted.failed);
  json->Key("died").Uint(counted.died).Key("evicted").Uint(counted.evicted);
  json->Key("zygote_pid").Int(state.zygote->running() ? state.zygote->pid() : 0);
  json->Key("zygote_starts").Uint(state.zygote->starts());
  if (!state.zygote->last_error().empty()) {
    json->Key("zygote_error").String(state.zygote->last_error());
  }
  json->EndObject();
}

}  // namespace

void AddSandbox(const SandboxRecord& record, JsonWriter* json) {
  json->BeginObject().Key("id").String(record.id).Key("template").String(record.template_name);
  json->Key("state").String(StateName(record.state)).Key("created_ms").Int(record.created_ms);
  json->Key("deadline_ms").Int(record.deadline_ms);
  json->Key("timeout_seconds").Uint(record.timeout_seconds);
  json->Key("on_timeout").String(record.on_timeout == OnTimeout::kKill ? "kill" : "pause");
  json->Key("memory_mib").Uint(record.memory_mib).Key("cpus").Uint(record.cpus);
  json->Key("pid").Int(record.pid).Key("vsock").String(record.vsock);
  json->Key("metadata").BeginObject();
  for (const auto& [key, value] : record.metadata) json->Key(key).String(value);
  json->EndObject();
  if (!record.reason.empty()) json->Key("reason").String(record.reason);
  json->EndObject();
}

void AddSnapshot(const SnapshotRecord& record, JsonWriter* json) {
  json->BeginObject().Key("id").String(record.id).Key("name").String(record.name);
  json->Key("sandbox").String(record.sandbox).Key("template").String(record.template_name);
  json->Key("created_ms").Int(record.created_ms).Key("path").String(record.path);
  json->Key("memory_mib").Uint(record.memory_mib).Key("cpus").Uint(record.cpus).EndObject();
}

std::string SandboxAnswer(const Sandbox& sandbox) {
  JsonWriter json = Begin();
  json.Key("sandbox");
  AddSandbox(sandbox.record(), &json);
  return json.EndObject().text();
}

std::string SandboxListAnswer(const Node& node, const std::string& state) {
  JsonWriter json = Begin();
  json.Key("sandboxes").BeginArray();
  for (const auto& [id, sandbox] : node.sandboxes()) {
    if (state.empty() || state == StateName(sandbox->state())) AddSandbox(sandbox->record(), &json);
  }
  return json.EndArray().EndObject().text();
}

std::string SnapshotListAnswer(Node& node) {
  JsonWriter json = Begin();
  json.Key("snapshots").BeginArray();
  for (const SnapshotRecord& record : node.context().shelf.Named()) AddSnapshot(record, &json);
  return json.EndArray().EndObject().text();
}

std::string TemplateListAnswer(const Node& node) {
  JsonWriter json = Begin();
  json.Key("templates").BeginArray();
  for (const auto& [name, entry] : node.registry().entries()) {
    json.BeginObject().Key("name").String(name).Key("id").String(entry.id);
    json.Key("created").String(entry.created).Key("memory_mib").Uint(entry.memory_mib);
    json.Key("cpus").Uint(entry.cpus);
    if (!entry.error.empty()) json.Key("error").String(entry.error);
    json.EndObject();
  }
  return json.EndArray().EndObject().text();
}

std::string PoolAnswer(const Node& node) {
  JsonWriter json = Begin();
  json.Key("pools").BeginArray();
  for (const auto& [name, state] : node.templates()) AddPool(name, state, &json);
  return json.EndArray().EndObject().text();
}

std::string NodeAnswer(Node& node, const std::string& http_address) {
  constexpr SandboxState kStates[] = {SandboxState::kRunning, SandboxState::kPaused,
                                      SandboxState::kDead};
  Capacity& capacity = node.context().capacity;
  const HostResources host = capacity.host();
  JsonWriter json = Begin();
  json.Key("pid").Int(getpid()).Key("home").String(node.context().config.home);
  if (!http_address.empty()) json.Key("http").String(http_address);
  json.Key("draining").Bool(node.draining());
  json.Key("sandboxes").Uint(node.sandboxes().size());
  for (SandboxState state : kStates) {
    uint64_t count = 0;
    for (const auto& [id, sandbox] : node.sandboxes()) count += sandbox->state() == state;
    json.Key(StateName(state)).Uint(count);
  }
  size_t parked = 0;
  for (const auto& [name, state] : node.templates()) parked += state.pool->parked();
  json.Key("parked").Uint(parked).Key("templates").Uint(node.registry().entries().size());
  json.Key("creates").Uint(node.creates()).Key("failed_creates").Uint(node.failed_creates());
  json.Key("memory_mib").BeginObject().Key("given").Uint(capacity.counters().memory_mib);
  json.Key("limit").Uint(capacity.memory_limit_mib()).Key("host").Uint(host.total_mib);
  json.Key("available").Uint(host.available_mib).EndObject();
  json.Key("cpus").BeginObject().Key("given").Uint(capacity.counters().cpus);
  json.Key("limit").Double(capacity.cpu_limit()).Key("host").Uint(host.cpus).EndObject();
  json.Key("memory_pressure").Double(host.memory_pressure);
  return json.EndObject().text();
}

}  // namespace cube::pool
