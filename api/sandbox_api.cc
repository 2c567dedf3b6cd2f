#include "api/sandbox_api.h"
#include "pool/network_api.h"

#include <spdlog/spdlog.h>

#include "api/sandbox_answers.h"
#include "api/secret.h"

namespace cube::api {
namespace {

using pool::Fault;
using pool::Outcome;
using pool::Refuse;
using pool::Sandbox;
using pool::SandboxState;

constexpr int64_t kShortSeconds = 15;  // where the first version of the protocol says nothing
constexpr size_t kTokenBytes = 32;

template <typename Handler>
CallHandler Bind(Handler handler) {
  return [handler](std::shared_ptr<Call> call) -> Task<Answer> { return handler(call); };
}

pool::Refusal NotDone(const std::string& field) {
  return Refuse(Fault::kInvalid, "\"%s\" is not supported by this node", field.c_str());
}

}  // namespace

void SandboxApi::AddTo(Router* router) {
  using V = Version;
  auto add = [&](const char* method, const char* pattern, auto handler) {
    router->Add(method, pattern, Bind(handler));
  };
  add("POST", "/sandboxes", [this](Shared c) { return Create(c, V::kOne); });
  add("POST", "/v2/sandboxes", [this](Shared c) { return Create(c, V::kTwo); });
  add("GET", "/sandboxes", [this](Shared c) { return List(c); });
  add("GET", "/v2/sandboxes", [this](Shared c) { return ListVersionTwo(c); });
  add("GET", "/sandboxes/{sandboxID}", [this](Shared c) { return Info(c); });
  add("DELETE", "/sandboxes/{sandboxID}", [this](Shared c) { return Kill(c); });
  add("POST", "/sandboxes/{sandboxID}/pause", [this](Shared c) { return Pause(c); });
  add("POST", "/sandboxes/{sandboxID}/resume", [this](Shared c) { return Resume(c); });
  add("POST", "/sandboxes/{sandboxID}/connect", [this](Shared c) { return Connect(c, V::kOne); });
  add("POST", "/v2/sandboxes/{sandboxID}/connect",
      [this](Shared c) { return Connect(c, V::kTwo); });
  add("POST", "/sandboxes/{sandboxID}/timeout", [this](Shared c) { return SetTimeout(c); });
  add("POST", "/sandboxes/{sandboxID}/refreshes", [this](Shared c) { return Refresh(c); });
  add("POST", "/sandboxes/{sandboxID}/fork", [this](Shared c) { return Fork(c); });
  add("PUT", "/sandboxes/{sandboxID}/network", [this](Shared c) { return UpdateNetwork(c); });
}

Outcome<std::shared_ptr<Sandbox>> SandboxApi::Find(const Call& call) const {
  std::string id = call.path.at("sandboxID");
  auto found = node_->Find(id.substr(0, id.find('-')));
  if (found.ok() && IsShown(found.value()->state())) return found;
  if (found.ok() && found.value()->state() == SandboxState::kDead) {
    return Refuse(Fault::kNotFound, "sandbox \"%.64s\" not found: it has died: %.500s", id.c_str(),
                  found.value()->record().reason.c_str());
  }
  return Refuse(Fault::kNotFound, "sandbox \"%.64s\" not found", id.c_str());
}

std::string SandboxApi::SandboxText(const Sandbox& sandbox) const {
  JsonWriter json;
  AddSandbox(sandbox.record(), SandboxNotes::Parse(sandbox.record().annotation), domain(), &json);
  return json.text();
}

Outcome<std::vector<pool::VolumeMount>> SandboxApi::MountsOf(
    std::vector<MountRequest> asked) const {
  std::vector<pool::VolumeMount> mounts;
  for (MountRequest& one : asked) {
    const VolumeRecord* volume = volumes_->FindNamed(one.name);
    if (volume == nullptr) {
      return Refuse(Fault::kNotFound, "volume \"%.128s\" not found", one.name.c_str());
    }
    mounts.push_back({volume->id, volume->name, std::move(one.path)});
  }
  return mounts;
}

Task<Answer> SandboxApi::Create(Shared call, Version version) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<std::string> reference;
  std::optional<int64_t> timeout;
  std::optional<bool> secure, auto_pause, keep_memory, resumes;
  std::map<std::string, std::string> variables;
  pool::CreateRequest request;
  fields.Text("templateID", &reference, 256);
  fields.Whole("timeout", 1, MaxTimeout(), &timeout);
  fields.TextMap("metadata", &request.metadata);
  fields.TextMap("envVars", &variables);
  fields.Flag("secure", &secure);
  fields.Flag("autoPause", &auto_pause);
  fields.Flag("autoPauseMemory", &keep_memory);
  if (auto resume = fields.Object("autoResume")) resume->Flag("enabled", &resumes);
  auto network = fields.Object("network");
  NetworkRequest reach = ReadNetwork(&fields, network ? &*network : nullptr);
  (void)fields.Object("mcp");
  auto iam = fields.Object("iam");
  auto volumes = fields.Objects("volumeMounts", 64);
  std::vector<MountRequest> mounts;
  for (Fields& volume : volumes) {
    std::optional<std::string> name, path;
    volume.Text("name", &name, 128);
    volume.Text("path", &path);
    if (!name || !path) fields.Fail("volumeMounts", "has one without \"name\" or \"path\"");
    mounts.push_back({name.value_or(""), path.value_or("")});
  }
  if (!reference) fields.Fail("templateID", "is missing");
  for (const auto& [name, value] : variables) {
    if (name.empty() || name.find('=') != std::string::npos) {
      fields.Fail("envVars." + name, "is not a variable's name");
    }
  }
  if (keep_memory && !*keep_memory) {
    fields.Fail("autoPauseMemory", "of false is not supported by this node");
  }
  POOL_CO_TRY(fields.Check());
  if (!reach.unsupported.empty()) {
    co_return Reply::Error(501, "\"network." + reach.unsupported + "\" is not supported here");
  }
  if (iam && iam->Has("tokens")) co_return NotDone("iam.tokens");

  POOL_CO_ASSIGN(TemplateCatalog::Resolved from, catalog_->Resolve(*reference));
  POOL_CO_ASSIGN(request.volumes, MountsOf(std::move(mounts)));
  request.template_name = from.folder;
  request.snapshot = from.snapshot;
  bool is_new = version == Version::kTwo;
  int64_t fallback = is_new ? node_->context().config.timeout_seconds : kShortSeconds;
  request.timeout_seconds = static_cast<uint32_t>(timeout.value_or(fallback));
  request.on_timeout =
      auto_pause.value_or(false) ? pool::OnTimeout::kPause : pool::OnTimeout::kKill;
  if (is_new || secure.value_or(false)) request.token = RandomHex(kTokenBytes);
  POOL_CO_ASSIGN(request.network, pool::PolicyOfLists(reach.policy));
  SandboxNotes notes;
  notes.template_id = from.template_id;
  notes.alias = from.alias;
  notes.auto_resume = resumes.value_or(false);
  notes.allow_internet_access = reach.allow_internet_access;
  notes.network = reach.text;
  notes.mask_host = reach.mask_host;
  if (!reach.allow_public_traffic) notes.traffic_token = RandomHex(kTokenBytes);
  request.annotation = notes.Text();
  // What the agent takes for itself comes first: a client may say otherwise.
  request.environment.push_back("E2B_TEMPLATE_ID=" + from.template_id);
  auto entry = node_->registry().entries().find(from.folder);
  if (entry != node_->registry().entries().end()) {
    const pool::TemplateEntry& about = entry->second;
    if (!about.default_user.empty()) {
      request.environment.push_back("CUBE_DEFAULT_USER=" + about.default_user);
    }
    if (!about.default_directory.empty()) {
      request.environment.push_back("CUBE_DEFAULT_WORKDIR=" + about.default_directory);
    }
  }
  for (const auto& [name, value] : variables) request.environment.push_back(name + "=" + value);
  auto created = co_await node_->Create(std::move(request));
  if (!created.ok()) co_return created.refusal();
  auto sandbox = created->sandbox;
  co_return Reply::Json(201, SandboxText(*sandbox));
}

Task<Answer> SandboxApi::Info(Shared call) {
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, Find(*call));
  JsonWriter json;
  AddListed(sandbox->record(), SandboxNotes::Parse(sandbox->record().annotation), true, domain(),
            &json);
  co_return Reply::Json(200, json.text());
}

Task<Answer> SandboxApi::Kill(Shared call) {
  std::string id = call->path.at("sandboxID");
  auto sandbox = node_->Find(id.substr(0, id.find('-')));
  if (!sandbox.ok()) co_return Refuse(Fault::kNotFound, "sandbox \"%.64s\" not found", id.c_str());
  POOL_CO_TRY(co_await sandbox.value()->Kill());
  co_return Reply::Nothing();
}

Task<Answer> SandboxApi::Pause(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<bool> memory;
  fields.Flag("memory", &memory);
  if (memory && !*memory) {
    fields.Fail("memory", "of false, a pause that keeps the disk alone, is not supported here");
  }
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, Find(*call));
  POOL_CO_TRY(fields.Check());
  if (IsPaused(sandbox->state())) {
    co_return Refuse(Fault::kConflict, "sandbox \"%s\" is paused already", sandbox->id().c_str());
  }
  POOL_CO_TRY(co_await sandbox->Pause());
  co_return Reply::Nothing();
}

Task<Answer> SandboxApi::Resume(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<int64_t> timeout;
  std::optional<bool> auto_pause, memory;
  fields.Whole("timeout", 1, MaxTimeout(), &timeout);
  fields.Flag("autoPause", &auto_pause);
  fields.Flag("memory", &memory);
  if (memory && !*memory) fields.Fail("memory", "of false, a boot anew, is not supported here");
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, Find(*call));
  POOL_CO_TRY(fields.Check());
  auto seconds = static_cast<uint32_t>(timeout.value_or(kShortSeconds));
  POOL_CO_TRY(co_await sandbox->Resume(seconds));
  co_return Reply::Json(201, SandboxText(*sandbox));
}

Task<Answer> SandboxApi::Connect(Shared call, Version version) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<int64_t> timeout;
  std::optional<bool> memory;
  fields.Whole("timeout", 1, MaxTimeout(), &timeout);
  fields.Flag("memory", &memory);
  if (memory && !*memory) fields.Fail("memory", "of false, a boot anew, is not supported here");
  if (version == Version::kOne && !timeout) fields.Fail("timeout", "is missing");
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, Find(*call));
  POOL_CO_TRY(fields.Check());
  int64_t fallback = node_->context().config.timeout_seconds;
  bool was_paused = IsPaused(sandbox->state());
  POOL_CO_TRY(co_await sandbox->Connect(static_cast<uint32_t>(timeout.value_or(fallback))));
  co_return Reply::Json(was_paused ? 201 : 200, SandboxText(*sandbox));
}

Task<Answer> SandboxApi::SetTimeout(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<int64_t> timeout;
  fields.Whole("timeout", 0, MaxTimeout(), &timeout);
  if (!timeout) fields.Fail("timeout", "is missing");
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, Find(*call));
  POOL_CO_TRY(fields.Check());
  POOL_CO_TRY(co_await sandbox->SetTimeout(static_cast<uint32_t>(*timeout)));
  co_return Reply::Nothing();
}

// The older way to give it more time: it never gets less.
Task<Answer> SandboxApi::Refresh(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<int64_t> duration;
  fields.Whole("duration", 0, 3600, &duration);
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, Find(*call));
  POOL_CO_TRY(fields.Check());
  if (sandbox->state() == SandboxState::kPaused) {
    co_return Refuse(Fault::kConflict, "sandbox \"%s\" is paused", sandbox->id().c_str());
  }
  auto seconds = static_cast<uint32_t>(duration.value_or(kShortSeconds));
  POOL_CO_TRY(co_await sandbox->Connect(seconds));
  co_return Reply::Nothing();
}

Task<Answer> SandboxApi::Fork(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<int64_t> timeout, count;
  fields.Whole("timeout", 1, MaxTimeout(), &timeout);
  fields.Whole("count", 1, 100, &count);
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> parent, Find(*call));
  POOL_CO_TRY(fields.Check());
  auto number = static_cast<size_t>(count.value_or(1));
  std::vector<std::string> tokens(number);
  if (!parent->record().token.empty()) {
    for (std::string& token : tokens) token = RandomHex(kTokenBytes);
  }
  auto clones = co_await node_->Fork(parent->id(), static_cast<uint32_t>(number), tokens);
  if (!clones.ok()) co_return clones.refusal();
  auto seconds = static_cast<uint32_t>(timeout.value_or(kShortSeconds));
  JsonWriter json;
  json.BeginArray();
  for (const auto& clone : *clones) {
    SandboxNotes notes = SandboxNotes::Parse(clone->record().annotation);
    auto set = co_await clone->SetTimeout(seconds);
    if (set.ok() && !notes.traffic_token.empty()) {
      notes.traffic_token = RandomHex(kTokenBytes);
      set = co_await clone->Annotate(notes.Text());
    }
    json.BeginObject();
    if (set.ok()) {
      json.Key("sandbox");
      AddSandbox(clone->record(), notes, domain(), &json);
    } else {
      json.Key("error").BeginObject().Key("code").Uint(StatusOf(set.refusal().fault));
      json.Key("message").String(set.refusal().message).EndObject();
    }
    json.EndObject();
  }
  co_return Reply::Json(201, json.EndArray().text());
}

Task<Answer> SandboxApi::UpdateNetwork(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  NetworkRequest reach = ReadNetwork(&fields, &fields);
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, Find(*call));
  POOL_CO_TRY(fields.Check());
  if (!reach.unsupported.empty()) {
    co_return Reply::Error(501, "\"" + reach.unsupported + "\" is not supported here");
  }
  if (IsPaused(sandbox->state())) {
    co_return Refuse(Fault::kConflict, "sandbox \"%s\" is paused", sandbox->id().c_str());
  }
  POOL_CO_ASSIGN(net::Policy policy, pool::PolicyOfLists(reach.policy));
  // Limits are the operator's.
  policy.bytes_per_second = sandbox->record().network.bytes_per_second;
  policy.packets_per_second = sandbox->record().network.packets_per_second;
  POOL_CO_TRY(co_await sandbox->SetNetwork(std::move(policy)));
  SandboxNotes notes = SandboxNotes::Parse(sandbox->record().annotation);
  notes.allow_internet_access = reach.allow_internet_access;
  notes.network = MergeNetwork(notes.network, reach.text);
  POOL_CO_TRY(co_await sandbox->Annotate(notes.Text()));
  co_return Reply::Nothing();
}

}  // namespace cube::api
