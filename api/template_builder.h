#ifndef CUBE_API_TEMPLATE_BUILDER_H_
#define CUBE_API_TEMPLATE_BUILDER_H_

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "api/build_steps.h"
#include "api/template_catalog.h"
#include "pool/node.h"

namespace cube::api {

// What a build has said.
struct BuildLogEntry {
  int64_t time_ms;
  const char* level;  // info, error
  std::string message;
  std::string step;
};

// Builds templates by `cube-vmm template build`, one at a time, in processes of their own. On one
// thread.
class TemplateBuilder {
 public:
  static constexpr size_t kMaxEntries = 10'000;  // of a build's log; the rest is left out

  // Both outlive it. `folder`: of its own, where archives and builds are.
  TemplateBuilder(pool::Node* node, TemplateCatalog* catalog, std::string folder);

  // What a daemon before this one had begun is an error; files of it go.
  Status Open();
  // Begins to build; the catalog's record says what becomes of it. `tags`: what it is called then.
  void Start(BuildRecord build, BuildPlan plan, std::vector<std::string> tags);
  // Of builds of this daemon.
  const std::vector<BuildLogEntry>& LogOf(const std::string& build) const;

  // Where the archive with that hash is, or is to be.
  std::string ArchivePath(const std::string& hash) const { return folder_ + "/files/" + hash; }
  bool HasArchive(const std::string& hash) const;

 private:
  using Log = std::vector<BuildLogEntry>;
  pool::Task<void> Run(BuildRecord build, BuildPlan plan, std::vector<std::string> tags);
  pool::Task<pool::Outcome<pool::Done>> Prepare(const BuildPlan& plan, std::string context);
  pool::Task<pool::Outcome<pool::Done>> Build(BuildRecord* build, const StepsFile& steps,
                                              std::string work);
  void Add(const std::string& build, const char* level, std::string message, std::string step);
  void Finish(BuildRecord build, const pool::Outcome<pool::Done>& done,
              const std::vector<std::string>& tags);

  pool::Node* node_;
  TemplateCatalog* catalog_;
  std::string folder_;
  pool::AsyncLock one_at_a_time_;
  std::map<std::string, Log> logs_;
};

}  // namespace cube::api

#endif  // CUBE_API_TEMPLATE_BUILDER_H_
