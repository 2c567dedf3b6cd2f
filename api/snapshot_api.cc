#include "api/snapshot_api.h"

#include <algorithm>

#include "api/fields.h"
#include "api/page.h"
#include "api/sandbox_answers.h"

namespace cube::api {
namespace {

using pool::Fault;
using pool::Refuse;
using pool::SnapshotRecord;

void AddSnapshot(const SnapshotRecord& record, JsonWriter* json) {
  json->BeginObject().Key("snapshotID").String(record.id + ":default");
  json->Key("names").BeginArray();
  if (!record.name.empty()) json->String(record.name);
  json->EndArray().EndObject();
}

}  // namespace

void SnapshotApi::AddTo(Router* router) {
  router->Add("POST", "/sandboxes/{sandboxID}/snapshots",
              [this](std::shared_ptr<Call> call) -> Task<Answer> { return Create(call); });
  router->Add("GET", "/snapshots",
              [this](std::shared_ptr<Call> call) -> Task<Answer> { return List(call); });
}

Task<Answer> SnapshotApi::Create(std::shared_ptr<Call> call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<std::string> name;
  fields.Text("name", &name, 256);
  POOL_CO_TRY(fields.Check());
  if (name) POOL_CO_TRY(ParseTemplateName(*name));
  std::string id = call->path.at("sandboxID");
  auto sandbox = node_->Find(id);
  if (!sandbox.ok() || !IsShown(sandbox.value()->state())) {
    co_return Refuse(Fault::kNotFound, "sandbox \"%.64s\" not found", id.c_str());
  }
  auto taken = co_await sandbox.value()->Snapshot(name.value_or(""));
  if (!taken.ok()) co_return taken.refusal();
  JsonWriter json;
  AddSnapshot(*taken, &json);
  co_return Reply::Json(201, json.text());
}

Task<Answer> SnapshotApi::List(std::shared_ptr<Call> call) {
  POOL_CO_ASSIGN(Page page, Page::Of(*call));
  auto sandbox = call->Query("sandboxID");
  std::optional<TemplateName> name;
  if (auto text = call->Query("name"); text && !text->empty()) {
    POOL_CO_ASSIGN(name, ParseTemplateName(*text));
  }
  std::vector<SnapshotRecord> found;
  for (SnapshotRecord& record : node_->context().shelf.Named()) {
    if (sandbox && !sandbox->empty() && record.sandbox != *sandbox) continue;
    if (name) {
      auto own = ParseTemplateName(record.name);
      if (!own.ok() || own->name != name->name) continue;
      if (!name->tag.empty() && own->TagOrDefault() != name->tag) continue;
    }
    if (page.IsPast(record.created_ms, record.id, false)) found.push_back(std::move(record));
  }
  std::sort(found.begin(), found.end(), [](const SnapshotRecord& a, const SnapshotRecord& b) {
    return std::tie(a.created_ms, a.id) > std::tie(b.created_ms, b.id);
  });
  size_t shown = std::min(page.limit(), found.size());
  JsonWriter json;
  json.BeginArray();
  for (size_t i = 0; i < shown; ++i) AddSnapshot(found[i], &json);
  Reply reply = Reply::Json(200, json.EndArray().text());
  if (shown < found.size()) {
    const SnapshotRecord& last = found[shown - 1];
    reply.headers.emplace_back("X-Next-Token", Page::Token(last.created_ms, last.id));
  }
  co_return reply;
}

}  // namespace cube::api
