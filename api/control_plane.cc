#include "api/control_plane.h"

#include "api/openapi_text.h"

namespace cube::api {
namespace {

Task<Answer> Document(std::shared_ptr<Call> /*call*/) { co_return Reply::Json(200, kOpenApiText); }

// Those with a signature that is some sandbox's have gone there before they get here.
Task<Answer> Unsigned(std::shared_ptr<Call> /*call*/) {
  co_return Reply::Error(401, "neither a sandbox is named, nor is the signature of one");
}

}  // namespace

ControlPlane::ControlPlane(const Parts& parts)
    : observation_(parts.node, parts.sampler),
      sandboxes_(parts.node, parts.catalog, parts.volumes),
      snapshots_(parts.node, parts.catalog),
      templates_(parts.node, parts.catalog),
      builds_(parts.node, parts.catalog, parts.builder),
      volumes_(parts.volumes, parts.node),
      accounts_(parts.node, parts.keys, parts.sampler, parts.node_id),
      nodes_(parts.node, parts.node_id, parts.service_id),
      dashboard_(parts.node, parts.sampler) {}

void ControlPlane::AddTo(Router* router) {
  observation_.AddTo(router);
  sandboxes_.AddTo(router);
  snapshots_.AddTo(router);
  templates_.AddTo(router);
  builds_.AddTo(router);
  volumes_.AddTo(router);
  accounts_.AddTo(router);
  nodes_.AddTo(router);
  dashboard_.AddTo(router);
  router->Add("GET", "/files", Unsigned, Access::kToken);
  router->Add("POST", "/files", Unsigned, Access::kToken);
  router->Add("GET", "/openapi.json", Document, Access::kPublic);
}

std::string ControlPlane::UploadPath(const Request& request) const {
  std::string path = builds_.UploadPath(request);
  return path.empty() ? volumes_.UploadPath(request) : path;
}

Reply ControlPlane::Uploaded(const Request& request, const std::string& path) const {
  return volumes_.IsUpload(path) ? volumes_.Uploaded(request, path) : Reply::Nothing();
}

}  // namespace cube::api
