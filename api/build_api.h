#ifndef CUBE_API_BUILD_API_H_
#define CUBE_API_BUILD_API_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "api/fields.h"
#include "api/router.h"
#include "api/template_builder.h"
#include "api/template_catalog.h"

namespace cube::api {

// The routes by which the SDK builds templates: a request, uploads, the start, what it says. On one
// thread.
class BuildApi {
 public:
  // All outlive it. `secure`: whether clients come by TLS.
  BuildApi(pool::Node* node, TemplateCatalog* catalog, TemplateBuilder* builder);

  void AddTo(Router* router);

  // The file that the body of an upload goes to, if `request` is one that was allowed; else "".
  std::string UploadPath(const Request& request) const;

 private:
  using Shared = std::shared_ptr<Call>;
  Task<Answer> RequestBuild(Shared call);
  Task<Answer> Files(Shared call);
  Task<Answer> Start(Shared call);
  Task<Answer> StatusOf(Shared call);
  Task<Answer> Logs(Shared call);

  pool::Outcome<BuildRecord> Find(const Call& call) const;
  pool::Outcome<BuildPlan> PlanOf(Fields* fields) const;
  pool::Outcome<std::string> FromImage(const std::string& image) const;
  std::string Signature(const std::string& hash, const std::string& until) const;

  pool::Node* node_;
  TemplateCatalog* catalog_;
  TemplateBuilder* builder_;
  std::string secret_;
  std::map<std::string, std::vector<std::string>> tags_;  // of builds that were not started yet
};

}  // namespace cube::api

#endif  // CUBE_API_BUILD_API_H_
