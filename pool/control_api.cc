#include "pool/control_api.h"

#include <set>

#include "base/json_writer.h"
#include "pool/control_answers.h"
#include "pool/network_api.h"
#include "pool/process_metrics.h"
#include "pool/sandbox_log_reader.h"

namespace cube::pool {
namespace {

constexpr size_t kMaxLogPiece = 256 * 1024;
constexpr char kDone[] = "{\"ok\":true}";

// Operations of one sandbox, with its "id".
const std::set<std::string> kOfSandbox = {"sandbox.info",     "sandbox.kill",     "sandbox.pause",
                                          "sandbox.resume",   "sandbox.connect",  "sandbox.fork",
                                          "sandbox.snapshot", "sandbox.rollback", "sandbox.timeout",
                                          "sandbox.logs",     "sandbox.metrics",  "sandbox.access"};

// `answer` is an object's text.
std::string Tagged(std::string answer, const std::string& tag) {
  if (tag.empty()) return answer;
  JsonWriter text;
  text.String(tag);
  answer.pop_back();
  return answer + ",\"tag\":" + text.text() + "}";
}

Outcome<std::optional<OnTimeout>> OnTimeoutOf(RequestFields* fields) {
  POOL_ASSIGN(std::string word, fields->String("on_timeout", ""));
  std::optional<OnTimeout> on_timeout;
  if (word == "kill") on_timeout = OnTimeout::kKill;
  if (word == "pause") on_timeout = OnTimeout::kPause;
  if (on_timeout || word.empty()) return on_timeout;
  return Refuse(Fault::kInvalid, "\"on_timeout\" is neither \"kill\" nor \"pause\"");
}

Outcome<std::optional<uint32_t>> TimeoutOf(const Node& node, RequestFields* fields) {
  POOL_ASSIGN(std::optional<uint64_t> seconds, fields->Number("timeout_seconds", UINT32_MAX));
  if (!seconds) return std::optional<uint32_t>();
  POOL_TRY(node.CheckTimeout(static_cast<uint32_t>(*seconds)));
  return std::optional<uint32_t>(static_cast<uint32_t>(*seconds));
}

Outcome<CreateRequest> CreateRequestOf(const Node& node, RequestFields* fields) {
  constexpr uint64_t kMaxMib = 1 << 24;
  constexpr double kMaxCpus = 1024;
  CreateRequest request;
  POOL_ASSIGN(request.template_name, fields->String("template", ""));
  POOL_ASSIGN(request.snapshot, fields->String("snapshot", ""));
  POOL_ASSIGN(request.metadata, fields->StringMap("metadata"));
  POOL_ASSIGN(request.environment, fields->Strings("environment"));
  POOL_ASSIGN(request.token, fields->String("token", ""));
  POOL_ASSIGN(request.timeout_seconds, TimeoutOf(node, fields));
  POOL_ASSIGN(request.on_timeout, OnTimeoutOf(fields));
  POOL_ASSIGN(std::optional<uint64_t> memory, fields->Number("limit_memory_mib", kMaxMib));
  POOL_ASSIGN(request.limits.cpus, fields->Real("limit_cpus", 0, kMaxCpus));
  request.limits.memory_mib = memory.value_or(0);
  POOL_ASSIGN(request.network, PolicyFields(fields));
  POOL_TRY(fields->Finish());
  return request;
}

// How its agent is reached, by who may use the control socket.
Outcome<std::string> Access(const Sandbox& sandbox) {
  const SandboxRecord& record = sandbox.record();
  if (record.state != SandboxState::kRunning && record.state != SandboxState::kSnapshotting) {
    return Refuse(Fault::kConflict, "sandbox %s is %s", record.id.c_str(), StateName(record.state));
  }
  JsonWriter json;
  json.BeginObject().Key("ok").Bool(true).Key("vsock").String(record.vsock);
  return json.Key("token").String(record.token).EndObject().text();
}

}  // namespace

std::string RefusalAnswer(const Refusal& refusal, const std::string& tag) {
  JsonWriter json;
  json.BeginObject().Key("ok").Bool(false).Key("code").String(FaultName(refusal.fault));
  json.Key("error").String(refusal.message).EndObject();
  return Tagged(json.text(), tag);
}

Task<std::string> ControlApi::Carry(std::string line) {
  auto fields = RequestFields::Parse(line);
  if (!fields.ok()) co_return RefusalAnswer(fields.refusal(), "");
  std::string tag = fields->tag();
  Outcome<std::string> answer = co_await Dispatch(&*fields);
  if (!answer.ok()) co_return RefusalAnswer(answer.refusal(), tag);
  co_return Tagged(std::move(*answer), tag);
}

Task<Outcome<std::string>> ControlApi::Dispatch(RequestFields* fields) {
  Node& node = *owner_.node;
  POOL_CO_ASSIGN(std::string op, fields->String("op"));
  if (op == "sandbox.create") co_return co_await Create(fields);
  if (kOfSandbox.contains(op)) co_return co_await OfSandbox(op, fields);
  if (op.starts_with("net.")) co_return co_await NetworkOperation(&node, op, fields);
  if (op == "sandbox.list") {
    POOL_CO_ASSIGN(std::string state, fields->String("state", ""));
    POOL_CO_TRY(fields->Finish());
    if (!state.empty() && !ParseState(state)) {
      co_return Refuse(Fault::kInvalid, "\"%.64s\" is not a state", state.c_str());
    }
    co_return SandboxListAnswer(node, state);
  }
  if (op == "snapshot.delete") {
    POOL_CO_ASSIGN(std::string id, fields->String("id"));
    POOL_CO_TRY(fields->Finish());
    POOL_CO_TRY(node.DeleteSnapshot(id));
    co_return std::string(kDone);
  }
  if (op == "template.delete") {
    POOL_CO_ASSIGN(std::string name, fields->String("name"));
    POOL_CO_TRY(fields->Finish());
    POOL_CO_TRY(co_await node.RemoveTemplate(name));
    co_return std::string(kDone);
  }
  if (op == "node.drain") {
    POOL_CO_ASSIGN(std::string mode, fields->String("mode", "pause"));
    POOL_CO_TRY(fields->Finish());
    if (mode != "pause" && mode != "wait") {
      co_return Refuse(Fault::kInvalid, "\"mode\" is neither \"pause\" nor \"wait\"");
    }
    POOL_CO_TRY(co_await node.Drain(mode == "pause"));
    owner_.leave();
    co_return std::string(kDone);
  }
  if (op == "key.create" || op == "key.list" || op == "key.revoke") {
    co_return owner_.keys(op, fields);
  }
  POOL_CO_TRY(fields->Finish());
  if (op == "snapshot.list") co_return SnapshotListAnswer(node);
  if (op == "template.list") co_return TemplateListAnswer(node);
  if (op == "pool.status") co_return PoolAnswer(node);
  if (op == "node.status") co_return NodeAnswer(node, owner_.http_address());
  if (op == "node.reload") {
    POOL_CO_TRY(owner_.reload());
    co_return std::string(kDone);
  }
  co_return Refuse(Fault::kInvalid, "unknown operation \"%.64s\"", op.c_str());
}

Task<Outcome<std::string>> ControlApi::Create(RequestFields* fields) {
  POOL_CO_ASSIGN(CreateRequest request, CreateRequestOf(*owner_.node, fields));
  auto created = co_await owner_.node->Create(std::move(request));
  if (!created.ok()) co_return created.refusal();
  JsonWriter json;
  json.BeginObject().Key("ok").Bool(true).Key("warm").Bool(created->was_parked).Key("sandbox");
  AddSandbox(created->sandbox->record(), &json);
  co_return json.EndObject().text();
}

Task<Outcome<std::string>> ControlApi::OfSandbox(std::string op, RequestFields* fields) {
  POOL_CO_ASSIGN(std::string id, fields->String("id"));
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, owner_.node->Find(id));
  if (op == "sandbox.logs") co_return Logs(*sandbox, fields);
  if (op == "sandbox.info" || op == "sandbox.metrics") {
    POOL_CO_TRY(fields->Finish());
    if (op == "sandbox.info") co_return SandboxAnswer(*sandbox);
    co_return Metrics(*sandbox);
  }
  if (op == "sandbox.access") {
    POOL_CO_TRY(fields->Finish());
    co_return Access(*sandbox);
  }
  if (op == "sandbox.fork") {
    POOL_CO_ASSIGN(std::optional<uint64_t> count, fields->Number("count", UINT32_MAX));
    POOL_CO_ASSIGN(std::vector<std::string> tokens, fields->Strings("tokens"));
    POOL_CO_TRY(fields->Finish());
    auto number = static_cast<uint32_t>(count.value_or(1));
    auto clones = co_await owner_.node->Fork(id, number, std::move(tokens));
    if (!clones.ok()) co_return clones.refusal();
    JsonWriter json;
    json.BeginObject().Key("ok").Bool(true).Key("sandboxes").BeginArray();
    for (const auto& clone : *clones) AddSandbox(clone->record(), &json);
    co_return json.EndArray().EndObject().text();
  }
  if (op == "sandbox.snapshot") {
    constexpr size_t kMaxName = 256;
    POOL_CO_ASSIGN(std::string name, fields->String("name", ""));
    POOL_CO_TRY(fields->Finish());
    if (name.size() > kMaxName) {
      co_return Refuse(Fault::kInvalid, "a snapshot's name has at most %zu bytes", kMaxName);
    }
    auto taken = co_await sandbox->Snapshot(std::move(name));
    if (!taken.ok()) co_return taken.refusal();
    JsonWriter json;
    json.BeginObject().Key("ok").Bool(true).Key("snapshot");
    AddSnapshot(*taken, &json);
    co_return json.EndObject().text();
  }
  co_return co_await Change(std::move(op), std::move(id), fields);
}

// What has no answer but the sandbox as it is then.
Task<Outcome<std::string>> ControlApi::Change(std::string op, std::string id,
                                              RequestFields* fields) {
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, owner_.node->Find(id));
  std::optional<uint32_t> timeout;
  std::string snapshot;
  if (op == "sandbox.resume" || op == "sandbox.connect" || op == "sandbox.timeout") {
    POOL_CO_ASSIGN(timeout, TimeoutOf(*owner_.node, fields));
  }
  if (op == "sandbox.rollback") {
    POOL_CO_ASSIGN(snapshot, fields->String("snapshot"));
  }
  POOL_CO_TRY(fields->Finish());
  Outcome<Done> done = Done();
  if (op == "sandbox.kill") {
    done = co_await sandbox->Kill();
  } else if (op == "sandbox.pause") {
    done = co_await sandbox->Pause();
  } else if (op == "sandbox.resume") {
    done = co_await sandbox->Resume(timeout);
  } else if (op == "sandbox.connect") {
    done = co_await sandbox->Connect(timeout);
  } else if (op == "sandbox.rollback") {
    done = co_await sandbox->Rollback(std::move(snapshot));
  } else if (!timeout) {
    done = Refuse(Fault::kInvalid, "\"timeout_seconds\" is missing");
  } else {
    done = co_await sandbox->SetTimeout(*timeout);
  }
  if (!done.ok()) co_return done.refusal();
  if (op == "sandbox.kill") co_return std::string(kDone);
  co_return SandboxAnswer(*sandbox);
}

Outcome<std::string> ControlApi::Logs(const Sandbox& sandbox, RequestFields* fields) {
  POOL_ASSIGN(std::string cursor, fields->String("cursor", ""));
  POOL_ASSIGN(std::optional<uint64_t> limit, fields->Number("limit", kMaxLogPiece));
  POOL_TRY(fields->Finish());
  std::string path = owner_.node->context().launcher->LogPath(sandbox.id());
  POOL_ASSIGN(LogPiece piece, ReadSandboxLog(path, cursor, limit.value_or(kMaxLogPiece)));
  JsonWriter json;
  json.BeginObject().Key("ok").Bool(true).Key("text").String(piece.text);
  json.Key("cursor").String(piece.cursor).Key("skipped").Bool(piece.skipped);
  return json.EndObject().text();
}

Outcome<std::string> ControlApi::Metrics(const Sandbox& sandbox) {
  ProcessMetrics metrics = ReadProcessMetrics(sandbox.record().pid);
  JsonWriter json;
  json.BeginObject().Key("ok").Bool(true).Key("time_ms").Int(WallClockMs());
  json.Key("cpu_seconds").Double(metrics.cpu_seconds);
  json.Key("memory_bytes").Uint(metrics.memory_bytes);
  json.Key("shared_bytes").Uint(metrics.shared_bytes);
  json.Key("disk_bytes").Uint(metrics.disk_bytes);
  json.Key("memory_limit_mib").Uint(sandbox.record().memory_mib);
  json.Key("cpus").Uint(sandbox.record().cpus);
  return json.EndObject().text();
}

}  // namespace cube::pool
