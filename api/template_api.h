#ifndef CUBE_API_TEMPLATE_API_H_
#define CUBE_API_TEMPLATE_API_H_

#include <memory>

#include "api/router.h"
#include "api/template_catalog.h"
#include "pool/node.h"

namespace cube::api {

// The routes of templates: lists, names, tags, and what is deleted. On one thread.
class TemplateApi {
 public:
  // Both outlive it.
  TemplateApi(pool::Node* node, TemplateCatalog* catalog) : node_(node), catalog_(catalog) {}

  void AddTo(Router* router);

 private:
  using Shared = std::shared_ptr<Call>;
  Task<Answer> List();
  Task<Answer> Info(Shared call);
  Task<Answer> Delete(Shared call);
  Task<Answer> Update(Shared call);
  Task<Answer> Alias(Shared call);
  Task<Answer> Tags(Shared call);
  Task<Answer> AssignTags(Shared call);
  Task<Answer> RemoveTags(Shared call);

  // The one that a path's {templateID} names, whatever its tag.
  pool::Outcome<std::string> Find(const Call& call) const;

  pool::Node* node_;
  TemplateCatalog* catalog_;
};

}  // namespace cube::api

#endif  // CUBE_API_TEMPLATE_API_H_
