#include "api/build_api.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "api/date_text.h"
#include "api/secret.h"
#include "base/json_writer.h"

namespace cube::api {
namespace {

using pool::Fault;
using pool::Outcome;
using pool::Refuse;

constexpr size_t kMaxFolder = 48;  // of what is a template's name on the node
constexpr size_t kMaxSteps = 200;
constexpr size_t kMaxTags = 64;
constexpr int64_t kUploadMs = 3'600'000;
constexpr int64_t kMaxCpus = 8, kMinMemory = 128, kMaxMemory = 65536;
constexpr uint32_t kCpus = 1;
constexpr uint64_t kMemoryMib = 512;
constexpr char kUploads[] = "/uploads/";

void AddEntry(const BuildLogEntry& entry, JsonWriter* json) {
  json->BeginObject().Key("timestamp").String(DateText(entry.time_ms));
  json->Key("level").String(entry.level).Key("message").String(entry.message);
  if (!entry.step.empty()) json->Key("step").String(entry.step);
  json->EndObject();
}

Outcome<std::string> LevelOf(const Call& call) {
  return call.QueryWord("level", {"", "debug", "info", "warn", "error"});
}

// Entries are info or error.
std::vector<BuildLogEntry> AtLevel(std::vector<BuildLogEntry> log, const std::string& level) {
  if (level == "warn" || level == "error") {
    std::erase_if(
        log, [](const BuildLogEntry& entry) { return std::string_view(entry.level) != "error"; });
  }
  return log;
}

}  // namespace

BuildApi::BuildApi(pool::Node* node, TemplateCatalog* catalog, TemplateBuilder* builder)
    : node_(node), catalog_(catalog), builder_(builder), secret_(RandomHex(32)) {}

void BuildApi::AddTo(Router* router) {
  auto add = [&](const char* method, const char* pattern, auto handler) {
    router->Add(method, pattern,
                [handler](Shared call) -> Task<Answer> { return handler(std::move(call)); });
  };
  add("POST", "/v3/templates", [this](Shared c) { return RequestBuild(c); });
  add("POST", "/v2/templates", [this](Shared c) { return RequestBuild(c); });
  add("GET", "/templates/{templateID}/files/{hash}", [this](Shared c) { return Files(c); });
  add("POST", "/v2/templates/{templateID}/builds/{buildID}", [this](Shared c) { return Start(c); });
  add("GET", "/templates/{templateID}/builds/{buildID}/status",
      [this](Shared c) { return StatusOf(c); });
  add("GET", "/templates/{templateID}/builds/{buildID}/logs", [this](Shared c) { return Logs(c); });
  // Those with a signature have gone to a file before they get here.
  router->Add(
      "PUT", "/uploads/{hash}",
      [](Shared) -> Task<Answer> {
        co_return Reply::Error(403, "the upload's signature is not valid, or no longer");
      },
      Access::kToken);
  const char* kOld = "this form of a build, which runs where the CLI is, is not done here";
  router->AddUnsupported("POST", "/templates", kOld);
  router->AddUnsupported("POST", "/templates/{templateID}", kOld);
  router->AddUnsupported("POST", "/templates/{templateID}/builds/{buildID}", kOld);
}

Task<Answer> BuildApi::RequestBuild(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  std::optional<std::string> given, alias;
  std::optional<std::vector<std::string>> tags;
  std::optional<int64_t> cpus, memory, disk;
  fields.Text("name", &given, 128);
  fields.Text("alias", &alias, 128);
  fields.Texts("tags", &tags, kMaxTags);
  fields.Whole("cpuCount", 1, kMaxCpus, &cpus);
  fields.Whole("memoryMB", kMinMemory, kMaxMemory, &memory);
  fields.Whole("minFreeDiskMb", 0, 1 << 20, &disk);
  if (!given) given = alias;
  if (!given) fields.Fail("name", "is missing");
  POOL_CO_TRY(fields.Check());
  POOL_CO_ASSIGN(TemplateName name, ParseTemplateName(*given));
  if (name.name.size() > kMaxFolder || isalnum(static_cast<unsigned char>(name.name[0])) == 0) {
    co_return Refuse(Fault::kInvalid,
                     "\"%.100s\" is not a name of at most %zu characters that begins with a letter"
                     " or a digit",
                     name.name.c_str(), kMaxFolder);
  }
  std::vector<std::string> all = tags.value_or(std::vector<std::string>());
  if (!name.tag.empty() || all.empty()) all.push_back(name.TagOrDefault());
  for (const std::string& tag : all) {
    if (!IsTag(tag)) co_return Refuse(Fault::kInvalid, "\"%.100s\" is not a tag", tag.c_str());
  }
  BuildRecord build;
  build.id = RandomUuid();
  build.template_id = name.name;
  build.status = "waiting";
  build.cpus = static_cast<uint32_t>(cpus.value_or(kCpus));
  build.memory_mib = static_cast<uint64_t>(memory.value_or(kMemoryMib));
  build.created_ms = pool::WallClockMs();
  POOL_CO_TRY(catalog_->Put(build));
  tags_[build.id] = all;
  JsonWriter json;
  json.BeginObject().Key("templateID").String(name.name).Key("buildID").String(build.id);
  json.Key("public").Bool(false).Key("names").BeginArray().String(name.name).EndArray();
  json.Key("aliases").BeginArray().String(name.name).EndArray().Key("tags").BeginArray();
  for (const std::string& tag : all) json.String(tag);
  co_return Reply::Json(202, json.EndArray().EndObject().text());
}

std::string BuildApi::Signature(const std::string& hash, const std::string& until) const {
  return HmacHex(secret_, hash + ":" + until);
}

Task<Answer> BuildApi::Files(Shared call) {
  const std::string& hash = call->path.at("hash");
  POOL_CO_ASSIGN(TemplateName name, ParseTemplateName(call->path.at("templateID")));
  if (!catalog_->Knows(name.name)) {
    co_return Refuse(Fault::kNotFound, "template '%s' not found", name.name.c_str());
  }
  if (!IsFilesHash(hash)) {
    co_return Refuse(Fault::kInvalid, "\"%.100s\" is not 64 hexadecimal digits", hash.c_str());
  }
  const std::string* host = call->request.headers.Find("host");
  const std::string until = std::to_string(pool::WallClockMs() + kUploadMs);
  bool is_tls = !node_->context().config.api.tls_certificate.empty();
  std::string url = std::string(is_tls ? "https://" : "http://") + (host != nullptr ? *host : "") +
                    kUploads + hash + "?until=" + until + "&signature=" + Signature(hash, until);
  JsonWriter json;
  json.BeginObject().Key("present").Bool(builder_->HasArchive(hash)).Key("url").String(url);
  co_return Reply::Json(201, json.EndObject().text());
}

std::string BuildApi::UploadPath(const Request& request) const {
  if (request.method != "PUT" || !request.path.starts_with(kUploads)) return "";
  std::string hash = request.path.substr(sizeof kUploads - 1);
  auto fields = ParseQuery(request.query);
  if (!IsFilesHash(hash) || !fields) return "";
  std::string until, signature;
  for (const auto& [name, value] : *fields) {
    if (name == "until") until = value;
    if (name == "signature") signature = value;
  }
  int64_t end = 0;
  std::from_chars(until.data(), until.data() + until.size(), end);
  if (!SameSecret(signature, Signature(hash, until)) || end < pool::WallClockMs()) return "";
  return builder_->ArchivePath(hash);
}

Outcome<BuildRecord> BuildApi::Find(const Call& call) const {
  const std::string& id = call.path.at("buildID");
  POOL_ASSIGN(TemplateName name, ParseTemplateName(call.path.at("templateID")));
  const BuildRecord* build = catalog_->FindBuild(id);
  if (build == nullptr || build->template_id != name.name) {
    return Refuse(Fault::kNotFound, "template '%s' has no build '%.64s'", name.name.c_str(),
                  id.c_str());
  }
  return *build;
}

// There is no registry to ask: an image is a template, or a disk in HOME/images, of its name.
Outcome<std::string> BuildApi::FromImage(const std::string& image) const {
  std::string name = image.substr(0, image.find('@'));
  size_t slash = name.rfind('/'), colon = name.rfind(':');
  if (colon != std::string::npos && (slash == std::string::npos || colon > slash)) {
    name.erase(colon);
  }
  bool is_registry = slash != std::string::npos && !image.starts_with("e2bdev/") &&
                     !image.starts_with("library/") && !image.starts_with("docker.io/library/");
  name.erase(0, name.rfind('/') + 1);
  if (!is_registry) {
    auto resolved = catalog_->Resolve(name);
    if (resolved.ok() && !resolved->folder.empty()) return resolved->folder;
    std::error_code failed;
    auto parsed = ParseTemplateName(name);
    const std::string disk = node_->context().config.home + "/images/" + name + ".ext4";
    if (parsed.ok() && std::filesystem::exists(disk, failed)) return parsed->name;
  }
  return Refuse(Fault::kInvalid,
                "the image '%.200s' is not on this node, which loads none from registries: build "
                "from a template (fromTemplate), or put its disk at HOME/images/%.64s.ext4",
                image.c_str(), name.c_str());
}

Outcome<BuildPlan> BuildApi::PlanOf(Fields* fields) const {
  std::optional<std::string> image, base, start, ready;
  std::optional<bool> force;
  fields->Text("fromImage", &image, 1024);
  fields->Text("fromTemplate", &base, 512);
  fields->Text("startCmd", &start, 65536);
  fields->Text("readyCmd", &ready, 65536);
  fields->Flag("force", &force);
  auto registry = fields->Object("fromImageRegistry");
  BuildPlan plan;
  for (Fields& each : fields->Objects("steps", kMaxSteps)) {
    std::optional<std::string> type, hash;
    std::optional<std::vector<std::string>> args;
    std::optional<bool> again;
    each.Text("type", &type, 32);
    each.Texts("args", &args, 256);
    each.Text("filesHash", &hash, 64);
    each.Flag("force", &again);
    if (!type) each.Fail("type", "is missing");
    plan.steps.push_back(
        {type.value_or(""), args.value_or(std::vector<std::string>()), hash.value_or("")});
  }
  if (image.has_value() == base.has_value()) {
    fields->Fail("fromImage", "or \"fromTemplate\", one of them, is needed");
  }
  POOL_TRY(fields->Check());
  if (base) {
    POOL_ASSIGN(TemplateCatalog::Resolved resolved, catalog_->Resolve(*base));
    if (resolved.folder.empty()) {
      return Refuse(Fault::kInvalid, "'%.100s' is a snapshot, not a template", base->c_str());
    }
    plan.from = resolved.folder;
  } else {
    POOL_ASSIGN(plan.from, FromImage(*image));
  }
  auto entry = node_->registry().entries().find(plan.from);
  if (entry != node_->registry().entries().end()) {
    if (!entry->second.default_user.empty()) plan.user = entry->second.default_user;
    if (!entry->second.default_directory.empty()) plan.workdir = entry->second.default_directory;
  }
  plan.start_command = start.value_or("");
  plan.ready_command = ready.value_or("");
  return plan;
}

Task<Answer> BuildApi::Start(Shared call) {
  POOL_CO_ASSIGN(Fields fields, Fields::Parse(call->request.body));
  POOL_CO_ASSIGN(BuildRecord build, Find(*call));
  if (build.status != "waiting") {
    co_return Refuse(Fault::kInvalid, "build '%s' is not waiting to be started but %s",
                     build.id.c_str(), build.status.c_str());
  }
  POOL_CO_ASSIGN(BuildPlan plan, PlanOf(&fields));
  POOL_CO_TRY(WriteSteps(plan));
  build.status = "building";
  POOL_CO_TRY(catalog_->Put(build));
  auto tags = tags_.extract(build.id);
  std::vector<std::string> names =
      tags.empty() ? std::vector<std::string>{TemplateCatalog::kDefault} : tags.mapped();
  builder_->Start(std::move(build), std::move(plan), std::move(names));
  co_return Reply::Json(202, "");
}

Task<Answer> BuildApi::StatusOf(Shared call) {
  POOL_CO_ASSIGN(std::optional<int64_t> offset, call->QueryWhole("logsOffset", 0, INT32_MAX));
  POOL_CO_ASSIGN(std::optional<int64_t> limit, call->QueryWhole("limit", 0, 100));
  POOL_CO_ASSIGN(std::string level, LevelOf(*call));
  POOL_CO_ASSIGN(BuildRecord build, Find(*call));
  const std::vector<BuildLogEntry> log = AtLevel(builder_->LogOf(build.id), level);
  size_t from = std::min(static_cast<size_t>(offset.value_or(0)), log.size());
  size_t to = std::min(from + static_cast<size_t>(limit.value_or(100)), log.size());
  JsonWriter json;
  json.BeginObject().Key("templateID").String(build.template_id);
  json.Key("buildID").String(build.id).Key("status").String(build.status);
  json.Key("logs").BeginArray();
  for (size_t i = from; i < to; ++i) json.String(log[i].message + "\n");
  json.EndArray().Key("logEntries").BeginArray();
  for (size_t i = from; i < to; ++i) AddEntry(log[i], &json);
  json.EndArray();
  if (build.status == "error") {
    json.Key("reason").BeginObject().Key("message").String(build.reason);
    if (!build.step.empty()) json.Key("step").String(build.step);
    json.EndObject();
  }
  co_return Reply::Json(200, json.EndObject().text());
}

Task<Answer> BuildApi::Logs(Shared call) {
  POOL_CO_ASSIGN(std::optional<int64_t> cursor, call->QueryWhole("cursor", 0, INT64_MAX));
  POOL_CO_ASSIGN(std::optional<int64_t> limit, call->QueryWhole("limit", 0, 100));
  POOL_CO_ASSIGN(std::string direction, call->QueryWord("direction", {"forward", "backward"}));
  POOL_CO_ASSIGN(std::string level, LevelOf(*call));
  // There is one source.
  POOL_CO_TRY(call->QueryWord("source", {"", "temporary", "persistent"}));
  POOL_CO_ASSIGN(BuildRecord build, Find(*call));
  bool backward = direction == "backward";
  std::vector<BuildLogEntry> log = AtLevel(builder_->LogOf(build.id), level);
  if (backward) std::reverse(log.begin(), log.end());
  size_t left = static_cast<size_t>(limit.value_or(100));
  JsonWriter json;
  json.BeginObject().Key("logs").BeginArray();
  for (const BuildLogEntry& entry : log) {
    if (cursor && (backward ? entry.time_ms > *cursor : entry.time_ms < *cursor)) continue;
    if (left-- == 0) break;
    AddEntry(entry, &json);
  }
  co_return Reply::Json(200, json.EndArray().EndObject().text());
}

}  // namespace cube::api
