#include "api/endpoint.h"

#include <spdlog/spdlog.h>

#include "api/secret.h"
#include "api/signed_url.h"
#include "base/json_writer.h"
#include "base/monotonic.h"

namespace cube::api {
namespace {

void AddKey(const KeyRecord& key, JsonWriter* json) {
  json->Key("id").String(key.id).Key("name").String(key.name).Key("prefix").String(key.prefix);
  json->Key("created_ms").Int(key.created_ms).Key("used_ms").Int(key.used_ms);
  json->Key("revoked_ms").Int(key.revoked_ms);
}

}  // namespace

Endpoint::Endpoint(pool::Node* node, pool::Database database)
    : node_(node),
      database_(std::move(database)),
      gateway_(node),
      sampler_(node),
      server_(node->context().io, MakeHandlers()) {}

Result<std::unique_ptr<Endpoint>> Endpoint::Create(pool::Node* node) {
  const std::string folder = node->context().config.home + "/node";
  CUBE_ASSIGN(pool::Database database, OpenApiDatabase(folder + "/api.db"));
  std::unique_ptr<Endpoint> endpoint(new Endpoint(node, std::move(database)));
  CUBE_TRY(endpoint->Open());
  return endpoint;
}

Status Endpoint::Open() {
  const std::string folder = node_->context().config.home + "/node";
  CUBE_ASSIGN(keys_, KeyStore::Open(&database_));
  CUBE_ASSIGN(catalog_, TemplateCatalog::Open(&database_, node_));
  CUBE_ASSIGN(gate_, Gate::Create(&*keys_, folder + "/audit.log"));
  CUBE_TRY(gate_->Configure(node_->context().config.api));
  CUBE_ASSIGN(volumes_, VolumeStore::Open(&database_, node_->context().config.home + "/volumes"));
  builder_.emplace(node_, &*catalog_, folder + "/builds");
  CUBE_TRY(builder_->Open());
  ControlPlane::Parts parts;
  parts.node = node_;
  parts.catalog = &*catalog_;
  parts.builder = &*builder_;
  parts.sampler = &sampler_;
  parts.keys = &*keys_;
  parts.volumes = &*volumes_;
  CUBE_ASSIGN(parts.node_id, Setting(&database_, "node_id", RandomUuid()));
  parts.service_id = RandomUuid();
  control_.emplace(parts);
  router_.emplace(gate_.get());
  control_->AddTo(&*router_);
  return OkStatus();
}

Handlers Endpoint::MakeHandlers() {
  Handlers handlers;
  handlers.control = [this](Request request) { return Carry(std::move(request)); };
  handlers.signed_for = [this](const Request& request) { return SignedFor(*node_, request); };
  handlers.upload_path = [this](const Request& request) { return control_->UploadPath(request); };
  handlers.uploaded = [this](const Request& request, const std::string& path) {
    return control_->Uploaded(request, path);
  };
  handlers.open = [this](SandboxAddress address, std::shared_ptr<Request> request,
                         std::shared_ptr<GuestLink> idle) {
    return gateway_.Open(std::move(address), std::move(request), std::move(idle));
  };
  return handlers;
}

Task<Reply> Endpoint::Carry(Request request) {
  bool is_create =
      request.method == "POST" && (request.path == "/sandboxes" || request.path == "/v2/sandboxes");
  uint64_t start = MonotonicNow();
  Reply reply = co_await router_->Carry(std::move(request));
  if (is_create)
    control_->observation().CountCreate(reply.status, Milliseconds(start, MonotonicNow()));
  co_return reply;
}

Status Endpoint::Listen() {
  const pool::ApiConfig& config = node_->context().config.api;
  control_->Start();
  if (config.listen == "off") return OkStatus();
  CUBE_TRY(server_.Listen(config));
  sampler_.Start();
  spdlog::info("HTTP{} at {}{}", config.tls_certificate.empty() ? "" : "S", server_.address(),
               gate_->open() ? "; no API keys are needed (cube key create)" : "");
  return OkStatus();
}

Status Endpoint::Reload() {
  CUBE_TRY(gate_->Configure(node_->context().config.api));
  return server_.Configure(node_->context().config.api);
}

void Endpoint::Close() {
  sampler_.Stop();
  server_.Close();
}

pool::Outcome<std::string> Endpoint::KeyOperation(const std::string& op,
                                                  pool::RequestFields* fields) {
  JsonWriter json;
  json.BeginObject().Key("ok").Bool(true);
  if (op == "key.create") {
    POOL_ASSIGN(std::string name, fields->String("name", ""));
    POOL_TRY(fields->Finish());
    POOL_ASSIGN(KeyStore::Made made, keys_->Create(name));
    json.Key("key").String(made.key);
    AddKey(made.record, &json);
  } else if (op == "key.revoke") {
    POOL_ASSIGN(std::string id, fields->String("id"));
    POOL_TRY(fields->Finish());
    POOL_TRY(keys_->Revoke(id));
  } else {
    POOL_TRY(fields->Finish());
    json.Key("keys").BeginArray();
    for (const KeyRecord& key : keys_->List()) {
      json.BeginObject();
      AddKey(key, &json);
      json.EndObject();
    }
    json.EndArray();
  }
  return json.EndObject().text();
}

}  // namespace cube::api
