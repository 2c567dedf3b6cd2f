#include "api/account_api.h"

#include <algorithm>

#include "api/date_text.h"
#include "api/fields.h"
#include "api/gate.h"
#include "base/json_writer.h"

namespace cube::api {
namespace {

using pool::Fault;
using pool::Outcome;
using pool::Refuse;

constexpr int64_t kFarSeconds = int64_t{1} << 40;
constexpr size_t kMaxName = 128;

// What of a key is not secret: how it begins.
void AddMask(const KeyRecord& key, JsonWriter* json) {
  constexpr size_t kType = 4;  // "e2b_"
  json->Key("mask").BeginObject().Key("prefix").String(key.prefix.substr(0, kType));
  json->Key("valueLength").Uint(KeyStore::kDigits);
  json->Key("maskedValuePrefix").String(key.prefix.substr(kType));
  json->Key("maskedValueSuffix").String("").EndObject();
}

void AddKey(const KeyRecord& key, JsonWriter* json) {
  json->Key("id").String(key.id).Key("name").String(key.name);
  AddMask(key, json);
  json->Key("createdAt").String(DateText(key.created_ms)).Key("createdBy").Null();
  json->Key("lastUsed");
  if (key.used_ms == 0) {
    json->Null();
  } else {
    json->String(DateText(key.used_ms));
  }
}

void AddTime(int64_t time_ms, JsonWriter* json) {
  json->Key("timestamp").String(DateText(time_ms)).Key("timestampUnix").Int(time_ms / 1000);
}

Outcome<std::string> NameOf(const Call& call) {
  POOL_ASSIGN(Fields fields, Fields::Parse(call.request.body));
  std::optional<std::string> name;
  fields.Text("name", &name, kMaxName);
  if (!name || name->empty()) fields.Fail("name", "is missing");
  POOL_TRY(fields.Check());
  return std::move(*name);
}

}  // namespace

void AccountApi::AddTo(Router* router) {
  auto add = [&](const char* method, const char* pattern, auto handler) {
    router->Add(method, pattern,
                [handler](Shared call) -> Task<Answer> { return handler(std::move(call)); });
  };
  add("GET", "/teams", [this](Shared c) { return Teams(c); });
  add("GET", "/teams/{teamID}/metrics", [this](Shared c) { return TeamMetrics(c); });
  add("GET", "/teams/{teamID}/metrics/max", [this](Shared c) { return TeamMaximum(c); });
  add("POST", "/admin/teams/{teamID}/sandboxes/kill", [this](Shared c) { return KillAll(c); });
  add("GET", "/api-keys", [this](Shared) { return Keys(); });
  add("POST", "/api-keys", [this](Shared c) { return CreateKey(c, "key"); });
  add("PATCH", "/api-keys/{apiKeyID}", [this](Shared c) { return RenameKey(c); });
  add("DELETE", "/api-keys/{apiKeyID}", [this](Shared c) { return RevokeKey(c, "apiKeyID"); });
  add("POST", "/access-tokens", [this](Shared c) { return CreateKey(c, "token"); });
  add("DELETE", "/access-tokens/{accessTokenID}",
      [this](Shared c) { return RevokeKey(c, "accessTokenID"); });
  router->AddUnsupported("POST", "/admin/teams/{teamID}/builds/cancel",
                         "a build that has begun is not cancelled here: it ends by itself");
  const char* kSecrets = "secrets are put into requests of sandboxes, which is not done here";
  router->AddUnsupported("GET", "/secrets", kSecrets);
  router->AddUnsupported("POST", "/secrets", kSecrets);
  router->AddUnsupported("GET", "/secrets/{secretID}", kSecrets);
  router->AddUnsupported("POST", "/secrets/{secretID}", kSecrets);
  router->AddUnsupported("DELETE", "/secrets/{secretID}", kSecrets);
  const char* kEvents = "events of sandboxes are on the control socket only (cube events)";
  router->AddUnsupported("GET", "/events/sandboxes", kEvents);
  router->AddUnsupported("GET", "/events/sandboxes/{sandboxID}", kEvents);
  router->AddUnsupported("GET", "/events/webhooks", kEvents);
  router->AddUnsupported("POST", "/events/webhooks", kEvents);
}

// The key is the one that the client has shown: nobody knows another one in clear.
Task<Answer> AccountApi::Teams(Shared call) {
  JsonWriter json;
  json.BeginArray().BeginObject().Key("teamID").String(team_).Key("name").String("cube");
  json.Key("apiKey").String(ShownKey(call->request).value_or("")).Key("isDefault").Bool(true);
  co_return Reply::Json(200, json.EndObject().EndArray().text());
}

Outcome<std::vector<NodeSample>> AccountApi::Samples(const Call& call) const {
  POOL_ASSIGN(std::optional<int64_t> start, call.QueryWhole("start", 0, kFarSeconds));
  POOL_ASSIGN(std::optional<int64_t> end, call.QueryWhole("end", 0, kFarSeconds));
  if (start && end && *start > *end) return Refuse(Fault::kInvalid, "\"start\" is after \"end\"");
  if (call.path.at("teamID") != team_) {
    return Refuse(Fault::kNotFound, "team \"%.64s\" not found", call.path.at("teamID").c_str());
  }
  std::vector<NodeSample> samples;
  for (const NodeSample& sample : sampler_->node_samples()) {
    int64_t seconds = sample.time_ms / 1000;
    if (seconds >= start.value_or(0) && seconds <= end.value_or(kFarSeconds)) {
      samples.push_back(sample);
    }
  }
  return samples;
}

Task<Answer> AccountApi::TeamMetrics(Shared call) {
  POOL_CO_ASSIGN(std::vector<NodeSample> samples, Samples(*call));
  JsonWriter json;
  json.BeginArray();
  for (const NodeSample& sample : samples) {
    AddTime(sample.time_ms, &json.BeginObject());
    json.Key("concurrentSandboxes").Uint(sample.running);
    json.Key("sandboxStartRate").Double(sample.creates_per_second).EndObject();
  }
  co_return Reply::Json(200, json.EndArray().text());
}

Task<Answer> AccountApi::TeamMaximum(Shared call) {
  std::string metric = call->Query("metric").value_or("");
  bool is_rate = metric == "sandbox_start_rate";
  if (!is_rate && metric != "concurrent_sandboxes") {
    co_return Refuse(Fault::kInvalid,
                     "\"metric\" is not concurrent_sandboxes or sandbox_start_rate");
  }
  POOL_CO_ASSIGN(std::vector<NodeSample> samples, Samples(*call));
  NodeSample most;
  most.time_ms = pool::WallClockMs();
  for (const NodeSample& sample : samples) {
    bool is_more = is_rate ? sample.creates_per_second > most.creates_per_second
                           : sample.running > most.running;
    if (is_more) most = sample;
  }
  JsonWriter json;
  AddTime(most.time_ms, &json.BeginObject());
  json.Key("value").Double(is_rate ? most.creates_per_second : most.running).EndObject();
  co_return Reply::Json(200, json.text());
}

Task<Answer> AccountApi::KillAll(Shared call) {
  if (call->path.at("teamID") != team_) {
    co_return Refuse(Fault::kNotFound, "team \"%.64s\" not found", call->path.at("teamID").c_str());
  }
  std::vector<std::shared_ptr<pool::Sandbox>> all;
  for (const auto& [id, sandbox] : node_->sandboxes()) all.push_back(sandbox);
  size_t killed = 0;
  for (const auto& sandbox : all) killed += (co_await sandbox->Kill()).ok();
  JsonWriter json;
  json.BeginObject().Key("killedCount").Uint(killed).Key("failedCount").Uint(all.size() - killed);
  co_return Reply::Json(200, json.EndObject().text());
}

Task<Answer> AccountApi::Keys() {
  JsonWriter json;
  json.BeginArray();
  for (const KeyRecord& key : keys_->List()) {
    if (key.revoked_ms != 0) continue;
    AddKey(key, &json.BeginObject());
    json.EndObject();
  }
  co_return Reply::Json(200, json.EndArray().text());
}

Task<Answer> AccountApi::CreateKey(Shared call, const char* member) {
  POOL_CO_ASSIGN(std::string name, NameOf(*call));
  POOL_CO_ASSIGN(KeyStore::Made made, keys_->Create(name));
  JsonWriter json;
  AddKey(made.record, &json.BeginObject());
  co_return Reply::Json(201, json.Key(member).String(made.key).EndObject().text());
}

Task<Answer> AccountApi::RenameKey(Shared call) {
  POOL_CO_ASSIGN(std::string name, NameOf(*call));
  POOL_CO_TRY(keys_->Rename(call->path.at("apiKeyID"), name));
  co_return Reply::Json(200, "{}");
}

// By its id alone: a name may be that of several.
Task<Answer> AccountApi::RevokeKey(Shared call, const char* variable) {
  const std::string& id = call->path.at(variable);
  for (const KeyRecord& key : keys_->List()) {
    if (key.id != id || key.revoked_ms != 0) continue;
    POOL_CO_TRY(keys_->Revoke(id));
    co_return Reply::Nothing();
  }
  co_return Refuse(Fault::kNotFound, "there is no valid key \"%.64s\"", id.c_str());
}

}  // namespace cube::api
