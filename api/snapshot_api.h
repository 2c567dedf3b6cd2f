#ifndef CUBE_API_SNAPSHOT_API_H_
#define CUBE_API_SNAPSHOT_API_H_

#include <memory>

#include "api/router.h"
#include "api/template_catalog.h"
#include "pool/node.h"

namespace cube::api {

// The routes of snapshots that clients take of sandboxes; they are deleted as templates are. On one
// thread.
class SnapshotApi {
 public:
  // Both outlive it.
  SnapshotApi(pool::Node* node, TemplateCatalog* catalog) : node_(node), catalog_(catalog) {}

  void AddTo(Router* router);

 private:
  Task<Answer> Create(std::shared_ptr<Call> call);
  Task<Answer> List(std::shared_ptr<Call> call);

  pool::Node* node_;
  TemplateCatalog* catalog_;
};

}  // namespace cube::api

#endif  // CUBE_API_SNAPSHOT_API_H_
