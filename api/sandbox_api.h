#ifndef CUBE_API_SANDBOX_API_H_
#define CUBE_API_SANDBOX_API_H_

#include <memory>
#include <string>

#include "api/network_request.h"
#include "api/router.h"
#include "api/sandbox_notes.h"
#include "api/template_catalog.h"
#include "api/volume_store.h"
#include "pool/node.h"

namespace cube::api {

// One of "volumeMounts".
struct MountRequest {
  std::string name, path;
};

// The routes of sandboxes: from create to kill. On one thread.
class SandboxApi {
 public:
  // All outlive it.
  SandboxApi(pool::Node* node, TemplateCatalog* catalog, const VolumeStore* volumes)
      : node_(node), catalog_(catalog), volumes_(volumes) {}

  void AddTo(Router* router);

 private:
  using Shared = std::shared_ptr<Call>;
  enum class Version { kOne, kTwo };

  Task<Answer> Create(Shared call, Version version);
  Task<Answer> Info(Shared call);
  Task<Answer> Kill(Shared call);
  Task<Answer> Pause(Shared call);
  Task<Answer> Resume(Shared call);
  Task<Answer> Connect(Shared call, Version version);
  Task<Answer> SetTimeout(Shared call);
  Task<Answer> Refresh(Shared call);
  Task<Answer> Fork(Shared call);
  Task<Answer> UpdateNetwork(Shared call);
  Task<Answer> List(Shared call);
  Task<Answer> ListVersionTwo(Shared call);

  // Volumes by their names.
  pool::Outcome<std::vector<pool::VolumeMount>> MountsOf(std::vector<MountRequest> asked) const;
  // The one that a path names, if clients are told of it.
  pool::Outcome<std::shared_ptr<pool::Sandbox>> Find(const Call& call) const;
  std::string SandboxText(const pool::Sandbox& sandbox) const;
  const std::string& domain() const { return node_->context().config.api.domain; }
  int64_t MaxTimeout() const { return node_->context().config.max_timeout_seconds; }

  pool::Node* node_;
  TemplateCatalog* catalog_;
  const VolumeStore* volumes_;
};

}  // namespace cube::api

#endif  // CUBE_API_SANDBOX_API_H_
