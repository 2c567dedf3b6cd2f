#include "api/template_api.h"

#include <algorithm>

#include "api/date_text.h"
#include "api/fields.h"
#include "api/sandbox_answers.h"

namespace cube::api {
namespace {

using pool::Fault;
using pool::Outcome;
using pool::Refuse;

constexpr size_t kMaxTags = 64;

// What lists and details have in common.
void AddCommon(const std::string& name, const BuildRecord& newest, int64_t created_ms,
               JsonWriter* json) {
  json->Key("templateID").String(name).Key("public").Bool(false);
  json->Key("aliases").BeginArray().String(name).EndArray();
  json->Key("names").BeginArray().String(name).EndArray();
  json->Key("createdAt").String(DateText(created_ms));
  json->Key("updatedAt").String(DateText(newest.created_ms));
  json->Key("lastSpawnedAt").Null().Key("spawnCount").Uint(0);
}

void AddBuild(const BuildRecord& build, JsonWriter* json) {
  json->BeginObject().Key("buildID").String(build.id).Key("status").String(build.status);
  json->Key("createdAt").String(DateText(build.created_ms));
  json->Key("updatedAt").String(DateText(std::max(build.created_ms, build.finished_ms)));
  if (build.finished_ms != 0) json->Key("finishedAt").String(DateText(build.finished_ms));
  json->Key("cpuCount").Uint(build.cpus).Key("memoryMB").Uint(build.memory_mib);
  json->Key("envdVersion").String(kEnvdVersion).EndObject();
}

Outcome<std::vector<std::string>> TagsOf(Fields* fields) {
  std::optional<std::vector<std::string>> tags;
  fields->Texts("tags", &tags, kMaxTags);
  if (!tags || tags->empty()) fields->Fail("tags", "is missing or empty");
  POOL_TRY(fields->Check());
  for (std::string& tag : *tags) {
    std::transform(tag.begin(), tag.end(), tag.begin(), [](unsigned char c) { return tolower(c); });
    if (!IsTag(tag)) {
      return Refuse(Fault::kInvalid, "\"%.100s\" is not a tag of a-z, 0-9, '-', '_', '.'",
                    tag.c_str());
    }
  }
  return std::move(*tags);
}

}  // namespace

void TemplateApi::AddTo(Router* router) {
  auto add = [&](const char* method, const char* pattern, auto handler) {
    router->Add(method, pattern,
                [handler](Shared call) -> Task<Answer> { return handler(std::move(call)); });
  };
  add("GET", "/templates", [this](Shared) { return List(); });
  add("GET", "/v2/templates", [this](Shared) { return List(); });
  add("GET", "/templates/aliases/{alias}", [this](Shared c) { return Alias(c); });
  add("POST", "/templates/tags", [this](Shared c) { return AssignTags(c); });
  add("DELETE", "/templates/tags", [this](Shared c) { return RemoveTags(c); });
  add("GET", "/templates/{templateID}", [this](Shared c) { return Info(c); });
  add("DELETE", "/templates/{templateID}", [this](Shared c) { return Delete(c); });
  add("PATCH", "/templates/{templateID}", [this](Shared c) { return Update(c); });
  add("PATCH", "/v2/templates/{templateID}", [this](Shared c) { return Update(c); });
  add("GET", "/templates/{templateID}/tags", [this](Shared c) { return Tags(c); });
}

Outcome<std::string> TemplateApi::Find(const Call& call) const {
  const std::string& reference = call.path.at("templateID");
  POOL_ASSIGN(TemplateName name, ParseTemplateName(reference));
  if (catalog_->Knows(name.name)) return name.name;
  return Refuse(Fault::kNotFound, "template '%s' not found", reference.substr(0, 100).c_str());
}

Task<Answer> TemplateApi::List() {
  JsonWriter json;
  json.BeginArray();
  for (const std::string& name : catalog_->Names()) {
    std::vector<BuildRecord> builds = catalog_->BuildsOf(name);
    if (builds.empty()) continue;
    auto current = catalog_->BuildOf(name, TemplateCatalog::kDefault);
    const BuildRecord& build = current ? *current : builds.front();
    json.BeginObject();
    AddCommon(name, builds.front(), builds.back().created_ms, &json);
    json.Key("buildID").String(build.id).Key("buildStatus").String(build.status);
    json.Key("buildCount").Uint(builds.size()).Key("cpuCount").Uint(build.cpus);
    json.Key("memoryMB").Uint(build.memory_mib).Key("diskSizeMB").Uint(0);
    json.Key("envdVersion").String(kEnvdVersion).Key("createdBy").Null().EndObject();
  }
  co_return Reply::Json(200, json.EndArray().text());
}

Task<Answer> TemplateApi::Info(Shared call) {
  POOL_CO_ASSIGN(std::string name, Find(*call));
  std::vector<BuildRecord> builds = catalog_->BuildsOf(name);
  JsonWriter json;
  json.BeginObject();
  if (!builds.empty()) AddCommon(name, builds.front(), builds.back().created_ms, &json);
  json.Key("builds").BeginArray();
  for (const BuildRecord& build : builds) AddBuild(build, &json);
  co_return Reply::Json(200, json.EndArray().EndObject().text());
}

Task<Answer> TemplateApi::Delete(Shared call) {
  if (auto snapshot = catalog_->FindSnapshot(call->path.at("templateID"))) {
    POOL_CO_TRY(node_->DeleteSnapshot(snapshot->id));
    co_return Reply::Nothing();
  }
  POOL_CO_ASSIGN(std::string name, Find(*call));
  for (const BuildRecord& build : catalog_->BuildsOf(name)) {
    if (build.status == "building") {
      co_return Refuse(Fault::kConflict, "template '%s' is being built", name.c_str());
    }
    if (!build.folder.empty()) POOL_CO_TRY(co_await node_->RemoveTemplate(build.folder));
  }
  POOL_CO_TRY(catalog_->Remove(name));
  co_return Reply::Nothing();
}

// Templates are of this node, and all its clients may use them: there is nobody else to show them.
Task<Answer> TemplateApi::Update(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<bool> is_public;
  fields.Flag("public", &is_public);
  POOL_CO_TRY(fields.Check());
  POOL_CO_ASSIGN(std::string name, Find(*call));
  if (is_public.value_or(false)) {
    co_return Reply::Error(501, "templates of this node cannot be made public");
  }
  JsonWriter json;
  json.BeginObject().Key("names").BeginArray().String(name).EndArray().EndObject();
  co_return Reply::Json(200, json.text());
}

Task<Answer> TemplateApi::Alias(Shared call) {
  const std::string& alias = call->path.at("alias");
  POOL_CO_ASSIGN(TemplateName name, ParseTemplateName(alias));
  bool known = name.tag.empty() ? catalog_->Knows(name.name)
                                : catalog_->BuildOf(name.name, name.tag).has_value();
  if (!known) co_return Refuse(Fault::kNotFound, "template '%.100s' not found", alias.c_str());
  JsonWriter json;
  json.BeginObject().Key("templateID").String(name.name).Key("public").Bool(false).EndObject();
  co_return Reply::Json(200, json.text());
}

Task<Answer> TemplateApi::Tags(Shared call) {
  POOL_CO_ASSIGN(std::string name, Find(*call));
  JsonWriter json;
  json.BeginArray();
  for (const TagRecord& tag : catalog_->TagsOf(name)) {
    json.BeginObject().Key("tag").String(tag.tag).Key("buildID").String(tag.build);
    json.Key("createdAt").String(DateText(tag.created_ms)).EndObject();
  }
  co_return Reply::Json(200, json.EndArray().text());
}

Task<Answer> TemplateApi::AssignTags(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<std::string> target;
  fields.Text("target", &target, 512);
  if (!target) fields.Fail("target", "is missing");
  POOL_CO_ASSIGN(std::vector<std::string> tags, TagsOf(&fields));
  POOL_CO_ASSIGN(TemplateName name, ParseTemplateName(*target));
  auto build = catalog_->BuildOf(name.name, name.TagOrDefault());
  if (!build) {
    co_return Refuse(Fault::kNotFound, "template '%.100s' not found", target->c_str());
  }
  JsonWriter json;
  json.BeginObject().Key("buildID").String(build->id).Key("tags").BeginArray();
  for (const std::string& tag : tags) {
    POOL_CO_TRY(catalog_->PutTag(name.name, tag, build->id));
    json.String(tag);
  }
  co_return Reply::Json(201, json.EndArray().EndObject().text());
}

Task<Answer> TemplateApi::RemoveTags(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<std::string> given;
  fields.Text("name", &given, 512);
  if (!given) fields.Fail("name", "is missing");
  POOL_CO_ASSIGN(std::vector<std::string> tags, TagsOf(&fields));
  POOL_CO_ASSIGN(TemplateName name, ParseTemplateName(*given));
  if (!catalog_->Knows(name.name)) {
    co_return Refuse(Fault::kNotFound, "template '%.100s' not found", given->c_str());
  }
  for (const std::string& tag : tags) {
    if (tag == TemplateCatalog::kDefault) {
      co_return Refuse(Fault::kInvalid, "the tag 'default' cannot be removed");
    }
    if (!catalog_->BuildOf(name.name, tag)) {
      co_return Refuse(Fault::kNotFound, "template '%s' has no tag '%s'", name.name.c_str(),
                       tag.c_str());
    }
  }
  for (const std::string& tag : tags) POOL_CO_TRY(catalog_->RemoveTag(name.name, tag));
  co_return Reply::Nothing();
}

}  // namespace cube::api
