#ifndef CUBE_API_CONTROL_PLANE_H_
#define CUBE_API_CONTROL_PLANE_H_

#include <string>

#include "api/account_api.h"
#include "api/build_api.h"
#include "api/dashboard_api.h"
#include "api/node_api.h"
#include "api/observation_api.h"
#include "api/sandbox_api.h"
#include "api/snapshot_api.h"
#include "api/template_api.h"
#include "api/volume_api.h"

namespace cube::api {

// All routes of the control plane. On one thread.
class ControlPlane {
 public:
  // What they work with, which outlives them. Null where routes are only named, not carried out.
  struct Parts {
    pool::Node* node = nullptr;
    TemplateCatalog* catalog = nullptr;
    TemplateBuilder* builder = nullptr;
    MetricsSampler* sampler = nullptr;
    KeyStore* keys = nullptr;
    VolumeStore* volumes = nullptr;
    std::string node_id;  // UUIDs: of this machine, and of this process
    std::string service_id;
  };
  explicit ControlPlane(const Parts& parts);

  void AddTo(Router* router);
  // What is to be done beside requests. Once.
  void Start() { volumes_.Start(); }

  ObservationApi& observation() { return observation_; }
  // To those of the two that take bodies as files.
  std::string UploadPath(const Request& request) const;
  Reply Uploaded(const Request& request, const std::string& path) const;

 private:
  ObservationApi observation_;
  SandboxApi sandboxes_;
  SnapshotApi snapshots_;
  TemplateApi templates_;
  BuildApi builds_;
  VolumeApi volumes_;
  AccountApi accounts_;
  NodeApi nodes_;
  DashboardApi dashboard_;
};

}  // namespace cube::api

#endif  // CUBE_API_CONTROL_PLANE_H_
