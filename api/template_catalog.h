#ifndef CUBE_API_TEMPLATE_CATALOG_H_
#define CUBE_API_TEMPLATE_CATALOG_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "api/api_database.h"
#include "pool/node.h"

namespace cube::api {

// "[NAMESPACE/]NAME[:TAG]", trimmed and in lower case.
struct TemplateName {
  std::string name;
  std::string tag;  // "": none is named
  std::string TagOrDefault() const { return tag.empty() ? "default" : tag; }
};
// kInvalid, with a message, if it is none.
pool::Outcome<TemplateName> ParseTemplateName(std::string text);
// a-z, 0-9, '-', '_' and '.'.
bool IsTag(const std::string& tag);

// One build of a template.
struct BuildRecord {
  std::string id;
  std::string template_id;
  std::string folder;  // its template's name on the node; "" before it is ready
  std::string status;  // waiting, building, ready, error
  std::string reason;  // of an error
  std::string step;    // the one that failed
  uint32_t cpus = 0;
  uint64_t memory_mib = 0;
  int64_t created_ms = 0;
  int64_t finished_ms = 0;
};

struct TagRecord {
  std::string tag;
  std::string build;
  int64_t created_ms = 0;
};

// What clients call templates: names and tags, each of a build, which is a template of the node;
// and the node's templates and snapshots themselves. On one thread.
class TemplateCatalog {
 public:
  static constexpr char kDefault[] = "default";

  // Both outlive it.
  static Result<TemplateCatalog> Open(pool::Database* database, pool::Node* node);

  struct Resolved {
    std::string template_id;  // what clients know it by
    std::string folder;       // the node's template, or
    std::string snapshot;     // the node's snapshot
    std::string alias;
  };
  // What a create may name.
  pool::Outcome<Resolved> Resolve(const std::string& reference) const;
  // A client's snapshot by its id or name, with or without a tag.
  std::optional<pool::SnapshotRecord> FindSnapshot(const std::string& reference) const;

  // All names of templates: of builds, and of the node.
  std::vector<std::string> Names() const;
  // Whether a template of that name is known, be it one that is still being built.
  bool Knows(const std::string& name) const;
  std::vector<BuildRecord> BuildsOf(const std::string& name) const;
  const BuildRecord* FindBuild(const std::string& id) const;
  std::vector<TagRecord> TagsOf(const std::string& name) const;
  // The build that a tag names; for a template of the node that nobody has built here, one that
  // stands for it.
  std::optional<BuildRecord> BuildOf(const std::string& name, const std::string& tag) const;

  Status Put(const BuildRecord& build);
  Status PutTag(const std::string& name, const std::string& tag, const std::string& build);
  Status RemoveTag(const std::string& name, const std::string& tag);
  // A template and all its builds.
  Status Remove(const std::string& name);

 private:
  TemplateCatalog(pool::Database* database, pool::Node* node) : database_(database), node_(node) {}
  std::optional<BuildRecord> BuildOfNode(const std::string& name) const;

  pool::Database* database_;
  pool::Node* node_;
  std::map<std::string, BuildRecord> builds_;
  std::map<std::string, std::map<std::string, TagRecord>> tags_;  // by template, by tag
};

}  // namespace cube::api

#endif  // CUBE_API_TEMPLATE_CATALOG_H_
