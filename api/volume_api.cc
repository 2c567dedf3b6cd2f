#include "api/volume_api.h"

#include <strings.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <utility>

#include "api/date_text.h"
#include "api/fields.h"
#include "api/secret.h"
#include "base/byte_io.h"
#include "base/json_writer.h"

namespace cube::api {
namespace {

using pool::Fault;
using pool::Outcome;
using pool::Refuse;

constexpr char kContent[] = "/volumecontent/{volumeID}";
constexpr int64_t kMaxId = 0xfffffffe;  // of users and groups
constexpr int64_t kMaxMode = 07777;
constexpr int64_t kMaxDepth = 32;
constexpr size_t kFilesAtOnce = 200;  // that go before the node's thread sees to others

std::string EntryText(const VolumeEntry& entry) {
  JsonWriter json;
  json.BeginObject().Key("name").String(entry.name).Key("path").String(entry.path);
  json.Key("type").String(entry.type).Key("size").Uint(entry.size).Key("mode").Uint(entry.mode);
  json.Key("uid").Uint(entry.uid).Key("gid").Uint(entry.gid);
  json.Key("atime").String(DateText(entry.accessed_ms));
  json.Key("mtime").String(DateText(entry.modified_ms));
  json.Key("ctime").String(DateText(entry.changed_ms)).EndObject();
  return json.text();
}

Outcome<VolumePath> PathOf(const Call& call) {
  auto path = call.Query("path");
  if (!path) return Refuse(Fault::kInvalid, "\"path\" is missing");
  return VolumePath::Parse(*path);
}

std::optional<uint32_t> Narrow(const std::optional<int64_t>& number) {
  if (!number) return std::nullopt;
  return static_cast<uint32_t>(*number);
}

Outcome<VolumeAttributes> AttributesOf(const Call& call) {
  POOL_ASSIGN(std::optional<int64_t> uid, call.QueryWhole("uid", 0, kMaxId));
  POOL_ASSIGN(std::optional<int64_t> gid, call.QueryWhole("gid", 0, kMaxId));
  POOL_ASSIGN(std::optional<int64_t> mode, call.QueryWhole("mode", 0, kMaxMode));
  return VolumeAttributes{Narrow(uid), Narrow(gid), Narrow(mode)};
}

// What a request that writes a file says, body apart.
struct Writing {
  VolumePath path;
  VolumeAttributes attributes;
  bool force = false;
};

Outcome<Writing> WritingOf(const Call& call) {
  Writing writing;
  POOL_ASSIGN(writing.path, PathOf(call));
  POOL_ASSIGN(writing.attributes, AttributesOf(call));
  POOL_ASSIGN(writing.force, call.QueryFlag("force"));
  if (writing.path.IsRoot()) return Refuse(Fault::kInvalid, "\"path\" is the volume's root");
  return writing;
}

// The request to write a file that this is, and the volume's id; or nothing.
std::optional<Call> FileCallOf(const Request& request) {
  if (request.method != "PUT") return std::nullopt;
  auto pieces = SplitPath(request.path);
  auto query = ParseQuery(request.query);
  if (!pieces || !query || pieces->size() != 3 || (*pieces)[0] != "volumecontent" ||
      (*pieces)[2] != "file") {
    return std::nullopt;
  }
  Call call;
  call.query = std::move(*query);
  call.path["volumeID"] = (*pieces)[1];
  return call;
}

void AddVolume(const VolumeRecord& volume, JsonWriter* json) {
  json->Key("volumeID").String(volume.id).Key("name").String(volume.name);
}

}  // namespace

VolumeApi::VolumeApi(VolumeStore* store, pool::Node* node) : store_(store), node_(node) {}

void VolumeApi::Start() { pool::Spawn(node_->context().io, EmptyTrash()); }

Task<void> VolumeApi::EmptyTrash() {
  if (std::exchange(emptying_, true)) co_return;
  pool::asio::io_context& io = node_->context().io;
  do {
    co_await pool::asio::post(io, pool::kAsTuple);
  } while (store_->trash()->Empty(kFilesAtOnce));
  emptying_ = false;
}

void VolumeApi::AddTo(Router* router) {
  auto add = [&](const char* method, const char* pattern, auto handler) {
    router->Add(method, pattern,
                [handler](Shared call) -> Task<Answer> { return handler(std::move(call)); });
  };
  add("GET", "/volumes", [this](Shared) { return List(); });
  add("POST", "/volumes", [this](Shared c) { return Create(c); });
  add("GET", "/volumes/{volumeID}", [this](Shared c) { return Info(c); });
  add("DELETE", "/volumes/{volumeID}", [this](Shared c) { return Delete(c); });
  AddContent(router);
}

void VolumeApi::AddContent(Router* router) {
  auto add = [&](const char* method, const char* what, auto handler) {
    router->Add(
        method, (std::string(kContent) + what).c_str(),
        [this, handler](Shared call) -> Task<Answer> {
          auto refused = Refused(call->request, call->path.at("volumeID"));
          if (refused) co_return std::move(*refused);
          co_return co_await handler(call);
        },
        Access::kToken);
  };
  add("GET", "/dir", [this](Shared c) { return ListFolder(c); });
  add("POST", "/dir", [this](Shared c) { return MakeFolder(c); });
  add("GET", "/path", [this](Shared c) { return Look(c); });
  add("PATCH", "/path", [this](Shared c) { return Change(c); });
  add("DELETE", "/path", [this](Shared c) { return Remove(c); });
  add("GET", "/file", [this](Shared c) { return Read(c); });
  add("PUT", "/file", [this](Shared c) { return Write(c); });
}

// Tokens are made of the id: of a volume that is gone, nobody has one, and whether there was one is
// not told.
std::optional<Reply> VolumeApi::Refused(const Request& request, const std::string& volume) const {
  constexpr std::string_view kBearer = "bearer ";
  const std::string* shown = request.headers.Find("authorization");
  if (shown == nullptr || strncasecmp(shown->c_str(), kBearer.data(), kBearer.size()) != 0) {
    return Reply::Error(401, "the volume's token is missing: Authorization: Bearer");
  }
  if (!SameSecret(shown->substr(kBearer.size()), store_->TokenOf(volume))) {
    return Reply::Error(401, "the volume's token is not valid");
  }
  return std::nullopt;
}

Task<Answer> VolumeApi::Create(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<std::string> name;
  fields.Text("name", &name, 128);
  if (!name) fields.Fail("name", "is missing");
  POOL_CO_TRY(fields.Check());
  POOL_CO_ASSIGN(VolumeRecord volume, store_->Create(*name));
  JsonWriter json;
  AddVolume(volume, &json.BeginObject());
  json.Key("token").String(store_->TokenOf(volume.id)).EndObject();
  co_return Reply::Json(201, json.text());
}

Task<Answer> VolumeApi::List() {
  JsonWriter json;
  json.BeginArray();
  for (const VolumeRecord& volume : store_->List()) {
    AddVolume(volume, &json.BeginObject());
    json.EndObject();
  }
  co_return Reply::Json(200, json.EndArray().text());
}

Task<Answer> VolumeApi::Info(Shared call) {
  const std::string& id = call->path.at("volumeID");
  const VolumeRecord* volume = store_->Find(id);
  if (volume == nullptr)
    co_return Refuse(Fault::kNotFound, "volume \"%.64s\" not found", id.c_str());
  JsonWriter json;
  AddVolume(*volume, &json.BeginObject());
  json.Key("token").String(store_->TokenOf(id)).EndObject();
  co_return Reply::Json(200, json.text());
}

Task<Answer> VolumeApi::Delete(Shared call) {
  const std::string& id = call->path.at("volumeID");
  POOL_CO_TRY(node_->CheckVolumeUnused(id));
  POOL_CO_TRY(store_->Delete(id));
  pool::Spawn(node_->context().io, EmptyTrash());
  co_return Reply::Nothing();
}

Task<Answer> VolumeApi::ListFolder(Shared call) {
  POOL_CO_ASSIGN(VolumePath path, PathOf(*call));
  POOL_CO_ASSIGN(std::optional<int64_t> depth, call->QueryWhole("depth", 1, kMaxDepth));
  POOL_CO_ASSIGN(UniqueFd root, store_->Root(call->path.at("volumeID")));
  VolumeFiles files(std::move(root));
  POOL_CO_ASSIGN(std::vector<VolumeEntry> all,
                 files.List(path, static_cast<int>(depth.value_or(1))));
  std::string text = "[";
  for (const VolumeEntry& entry : all) text += (text.size() > 1 ? "," : "") + EntryText(entry);
  co_return Reply::Json(200, text + "]");
}

Task<Answer> VolumeApi::MakeFolder(Shared call) {
  POOL_CO_ASSIGN(Writing writing, WritingOf(*call));
  POOL_CO_ASSIGN(UniqueFd root, store_->Root(call->path.at("volumeID")));
  POOL_CO_ASSIGN(
      VolumeEntry entry,
      VolumeFiles(std::move(root)).MakeFolder(writing.path, writing.attributes, writing.force));
  co_return Reply::Json(201, EntryText(entry));
}

Task<Answer> VolumeApi::Look(Shared call) {
  POOL_CO_ASSIGN(VolumePath path, PathOf(*call));
  POOL_CO_ASSIGN(UniqueFd root, store_->Root(call->path.at("volumeID")));
  POOL_CO_ASSIGN(VolumeEntry entry, VolumeFiles(std::move(root)).Look(path));
  co_return Reply::Json(200, EntryText(entry));
}

Task<Answer> VolumeApi::Change(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<int64_t> uid, gid, mode;
  fields.Whole("uid", 0, kMaxId, &uid);
  fields.Whole("gid", 0, kMaxId, &gid);
  fields.Whole("mode", 0, kMaxMode, &mode);
  POOL_CO_TRY(fields.Check());
  POOL_CO_ASSIGN(VolumePath path, PathOf(*call));
  POOL_CO_ASSIGN(UniqueFd root, store_->Root(call->path.at("volumeID")));
  POOL_CO_ASSIGN(
      VolumeEntry entry,
      VolumeFiles(std::move(root)).Change(path, {Narrow(uid), Narrow(gid), Narrow(mode)}));
  co_return Reply::Json(200, EntryText(entry));
}

Task<Answer> VolumeApi::Remove(Shared call) {
  POOL_CO_ASSIGN(VolumePath path, PathOf(*call));
  POOL_CO_ASSIGN(UniqueFd root, store_->Root(call->path.at("volumeID")));
  POOL_CO_TRY(VolumeFiles(std::move(root)).Remove(path, store_->trash()));
  pool::Spawn(node_->context().io, EmptyTrash());
  co_return Reply::Nothing();
}

Task<Answer> VolumeApi::Read(Shared call) {
  POOL_CO_ASSIGN(VolumePath path, PathOf(*call));
  POOL_CO_ASSIGN(UniqueFd root, store_->Root(call->path.at("volumeID")));
  POOL_CO_ASSIGN(UniqueFd file, VolumeFiles(std::move(root)).Open(path));
  Reply reply;
  reply.content_type = "application/octet-stream";
  POOL_CO_ASSIGN(reply.file_size, RegularFileSize(file.get(), "a volume's file"));
  reply.file = std::make_shared<UniqueFd>(std::move(file));
  co_return reply;
}

// A body that may be taken has gone to a file: this one has something wrong.
Task<Answer> VolumeApi::Write(Shared call) {
  POOL_CO_TRY(WritingOf(*call));
  POOL_CO_TRY(store_->Root(call->path.at("volumeID")));
  co_return Reply::Error(500, "the file was not written");
}

std::string VolumeApi::UploadPath(const Request& request) const {
  auto call = FileCallOf(request);
  if (!call) return "";
  const std::string& volume = call->path["volumeID"];
  if (Refused(request, volume) || store_->Find(volume) == nullptr || !WritingOf(*call).ok()) {
    return "";
  }
  return store_->StagingPath(request.id);
}

Reply VolumeApi::Uploaded(const Request& request, const std::string& path) const {
  auto place = [&]() -> Outcome<VolumeEntry> {
    auto call = FileCallOf(request);
    if (!call) return Refuse(Fault::kInvalid, "this is no file of a volume");
    POOL_ASSIGN(Writing writing, WritingOf(*call));
    POOL_ASSIGN(UniqueFd root, store_->Root(call->path["volumeID"]));
    return VolumeFiles(std::move(root))
        .Place(path, writing.path, writing.attributes, writing.force);
  };
  auto entry = place();
  if (entry.ok()) return Reply::Json(201, EntryText(*entry));
  unlink(path.c_str());
  return ReplyOf(entry.refusal());
}

}  // namespace cube::api
