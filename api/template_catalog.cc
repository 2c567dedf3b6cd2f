#include "api/template_catalog.h"

#include <algorithm>
#include <set>

#include "api/date_text.h"

namespace cube::api {
namespace {

using pool::Fault;
using pool::Refuse;

constexpr size_t kMaxName = 128;

bool IsOf(const std::string& text, const char* others) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           std::string_view(others).find(c) != std::string_view::npos;
  });
}

}  // namespace

bool IsTag(const std::string& tag) { return tag.size() <= kMaxName && IsOf(tag, "-_."); }

pool::Outcome<TemplateName> ParseTemplateName(std::string text) {
  const std::string given = text.substr(0, 100);
  text.erase(0, text.find_first_not_of(" \t\r\n"));
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  size_t slash = text.find('/');
  if (slash != std::string::npos) {
    if (!IsOf(text.substr(0, slash), "-_")) {
      return Refuse(Fault::kInvalid, "\"%s\" has no namespace before the slash", given.c_str());
    }
    text.erase(0, slash + 1);
  }
  TemplateName name;
  size_t colon = text.find(':');
  name.name = text.substr(0, colon);
  if (colon != std::string::npos) {
    name.tag = text.substr(colon + 1);
    if (!IsTag(name.tag)) {
      return Refuse(Fault::kInvalid, "\"%s\" has a tag that is not of a-z, 0-9, '-', '_', '.'",
                    given.c_str());
    }
  }
  if (name.name.size() > kMaxName || !IsOf(name.name, "-_.")) {
    return Refuse(Fault::kInvalid, "\"%s\" is not a template's name of a-z, 0-9, '-', '_'",
                  given.c_str());
  }
  return name;
}

Result<TemplateCatalog> TemplateCatalog::Open(pool::Database* database, pool::Node* node) {
  TemplateCatalog catalog(database, node);
  CUBE_ASSIGN(pool::Statement builds, database->Prepare("SELECT * FROM builds"));
  for (;;) {
    CUBE_ASSIGN(bool row, builds.Step());
    if (!row) break;
    BuildRecord build = {builds.Text(0),
                         builds.Text(1),
                         builds.Text(2),
                         builds.Text(3),
                         builds.Text(4),
                         builds.Text(5),
                         static_cast<uint32_t>(builds.Number(6)),
                         static_cast<uint64_t>(builds.Number(7)),
                         builds.Number(8),
                         builds.Number(9)};
    catalog.builds_[build.id] = std::move(build);
  }
  CUBE_ASSIGN(pool::Statement tags, database->Prepare("SELECT * FROM tags"));
  for (;;) {
    CUBE_ASSIGN(bool row, tags.Step());
    if (!row) break;
    catalog.tags_[tags.Text(0)][tags.Text(1)] = {tags.Text(1), tags.Text(2), tags.Number(3)};
  }
  return catalog;
}

std::optional<pool::SnapshotRecord> TemplateCatalog::FindSnapshot(
    const std::string& reference) const {
  auto name = ParseTemplateName(reference);
  if (!name.ok()) return std::nullopt;
  std::optional<pool::SnapshotRecord> found;
  for (const pool::SnapshotRecord& record : node_->context().shelf.Named()) {
    auto own = ParseTemplateName(record.name);
    bool by_id = record.id == name->name && name->TagOrDefault() == kDefault;
    bool by_name = !record.name.empty() && own.ok() && own->name == name->name &&
                   own->TagOrDefault() == name->TagOrDefault();
    bool is_newer = !found || record.created_ms > found->created_ms;
    if (by_id || (by_name && is_newer)) found = record;
    if (by_id) break;
  }
  return found;
}

std::optional<BuildRecord> TemplateCatalog::BuildOfNode(const std::string& name) const {
  const auto& entries = node_->registry().entries();
  auto entry = entries.find(name);
  if (entry == entries.end()) return std::nullopt;
  BuildRecord build;
  // Of 128 bits as a UUID is, and written as one.
  std::string id = entry->second.id + std::string(32, '0');
  build.id = id.substr(0, 8) + "-" + id.substr(8, 4) + "-" + id.substr(12, 4) + "-" +
             id.substr(16, 4) + "-" + id.substr(20, 12);
  build.template_id = build.folder = name;
  build.status = entry->second.error.empty() ? "ready" : "error";
  build.reason = entry->second.error;
  build.cpus = entry->second.cpus;
  build.memory_mib = entry->second.memory_mib;
  build.created_ms = build.finished_ms = ParseDate(entry->second.created).value_or(0);
  return build;
}

std::optional<BuildRecord> TemplateCatalog::BuildOf(const std::string& name,
                                                    const std::string& tag) const {
  auto tags = tags_.find(name);
  if (tags != tags_.end()) {
    auto found = tags->second.find(tag);
    if (found != tags->second.end()) {
      auto build = builds_.find(found->second.build);
      if (build != builds_.end()) return build->second;
      // A tag of what the node had.
      auto own = BuildOfNode(name);
      if (own && own->id == found->second.build) return own;
      return std::nullopt;
    }
  }
  if (tag != kDefault) return std::nullopt;
  return BuildOfNode(name);
}

pool::Outcome<TemplateCatalog::Resolved> TemplateCatalog::Resolve(
    const std::string& reference) const {
  POOL_ASSIGN(TemplateName name, ParseTemplateName(reference));
  Resolved resolved;
  if (auto snapshot = FindSnapshot(reference)) {
    resolved.snapshot = snapshot->id;
    resolved.template_id = snapshot->id;
    resolved.alias = snapshot->name;
    return resolved;
  }
  auto build = BuildOf(name.name, name.TagOrDefault());
  if (!build) {
    if (Knows(name.name)) {
      return Refuse(Fault::kNotFound, "template '%s' has no build with the tag '%s'",
                    name.name.c_str(), name.TagOrDefault().c_str());
    }
    return Refuse(Fault::kNotFound, "template '%s' not found", reference.substr(0, 100).c_str());
  }
  if (build->folder.empty()) {
    return Refuse(Fault::kNotFound, "template '%s' is not built yet", name.name.c_str());
  }
  resolved.template_id = resolved.alias = name.name;
  resolved.folder = build->folder;
  return resolved;
}

std::vector<std::string> TemplateCatalog::Names() const {
  std::set<std::string> names, folders;
  for (const auto& [id, build] : builds_) {
    names.insert(build.template_id);
    folders.insert(build.folder);
  }
  for (const auto& [name, entry] : node_->registry().entries()) {
    if (!folders.contains(name)) names.insert(name);
  }
  return {names.begin(), names.end()};
}

bool TemplateCatalog::Knows(const std::string& name) const {
  const auto& entries = node_->registry().entries();
  // A folder of a later build is not a template by itself.
  bool is_build = std::any_of(builds_.begin(), builds_.end(), [&](const auto& item) {
    return item.second.folder == name && item.second.template_id != name;
  });
  if (entries.contains(name) && !is_build) return true;
  return std::any_of(builds_.begin(), builds_.end(),
                     [&](const auto& item) { return item.second.template_id == name; });
}

std::vector<BuildRecord> TemplateCatalog::BuildsOf(const std::string& name) const {
  std::vector<BuildRecord> all;
  for (const auto& [id, build] : builds_) {
    if (build.template_id == name) all.push_back(build);
  }
  if (all.empty()) {
    if (auto own = BuildOfNode(name)) all.push_back(*own);
  }
  std::sort(all.begin(), all.end(),
            [](const BuildRecord& a, const BuildRecord& b) { return a.created_ms > b.created_ms; });
  return all;
}

const BuildRecord* TemplateCatalog::FindBuild(const std::string& id) const {
  auto found = builds_.find(id);
  return found == builds_.end() ? nullptr : &found->second;
}

std::vector<TagRecord> TemplateCatalog::TagsOf(const std::string& name) const {
  std::vector<TagRecord> all;
  auto tags = tags_.find(name);
  bool has_default = false;
  if (tags != tags_.end()) {
    for (const auto& [tag, record] : tags->second) {
      all.push_back(record);
      has_default |= tag == kDefault;
    }
  }
  if (!has_default) {
    if (auto own = BuildOfNode(name)) all.push_back({kDefault, own->id, own->created_ms});
  }
  return all;
}

Status TemplateCatalog::Put(const BuildRecord& build) {
  CUBE_ASSIGN(
      pool::Statement put,
      database_->Prepare("INSERT OR REPLACE INTO builds VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)"));
  put.Bind(1, build.id).Bind(2, build.template_id).Bind(3, build.folder).Bind(4, build.status);
  put.Bind(5, build.reason).Bind(6, build.step).Bind(7, int64_t{build.cpus});
  put.Bind(8, static_cast<int64_t>(build.memory_mib)).Bind(9, build.created_ms);
  put.Bind(10, build.finished_ms);
  CUBE_TRY(put.Run());
  builds_[build.id] = build;
  return OkStatus();
}

Status TemplateCatalog::PutTag(const std::string& name, const std::string& tag,
                               const std::string& build) {
  TagRecord record = {tag, build, pool::WallClockMs()};
  CUBE_ASSIGN(pool::Statement put,
              database_->Prepare("INSERT OR REPLACE INTO tags VALUES (?1,?2,?3,?4)"));
  put.Bind(1, name).Bind(2, tag).Bind(3, build).Bind(4, record.created_ms);
  CUBE_TRY(put.Run());
  tags_[name][tag] = std::move(record);
  return OkStatus();
}

Status TemplateCatalog::RemoveTag(const std::string& name, const std::string& tag) {
  CUBE_ASSIGN(pool::Statement remove,
              database_->Prepare("DELETE FROM tags WHERE template = ?1 AND tag = ?2"));
  CUBE_TRY(remove.Bind(1, name).Bind(2, tag).Run());
  tags_[name].erase(tag);
  return OkStatus();
}

Status TemplateCatalog::Remove(const std::string& name) {
  for (const char* sql :
       {"DELETE FROM tags WHERE template = ?1", "DELETE FROM builds WHERE template = ?1"}) {
    CUBE_ASSIGN(pool::Statement remove, database_->Prepare(sql));
    CUBE_TRY(remove.Bind(1, name).Run());
  }
  tags_.erase(name);
  std::erase_if(builds_, [&](const auto& item) { return item.second.template_id == name; });
  return OkStatus();
}

}  // namespace cube::api
