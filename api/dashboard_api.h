#ifndef CUBE_API_DASHBOARD_API_H_
#define CUBE_API_DASHBOARD_API_H_

#include "api/metrics_sampler.h"
#include "api/router.h"
#include "pool/node.h"

namespace cube::api {

// The dashboard's routes: / and /dashboard/FILE, which are public and the same for everybody, and
// /cube/status, which says all it shows of the node. On one thread.
class DashboardApi {
 public:
  // Both outlive it.
  DashboardApi(pool::Node* node, const MetricsSampler* sampler) : node_(node), sampler_(sampler) {}

  void AddTo(Router* router);

 private:
  Answer Status(const Call& call) const;

  pool::Node* node_;
  const MetricsSampler* sampler_;
};

}  // namespace cube::api

#endif  // CUBE_API_DASHBOARD_API_H_
