#ifndef CUBE_API_OBSERVATION_API_H_
#define CUBE_API_OBSERVATION_API_H_

#include <memory>

#include "api/metrics_sampler.h"
#include "api/router.h"
#include "pool/node.h"

namespace cube::api {

// The routes that tell what sandboxes use and say, and how the node is. On one thread.
class ObservationApi {
 public:
  // All outlive it.
  ObservationApi(pool::Node* node, MetricsSampler* sampler) : node_(node), sampler_(sampler) {}

  void AddTo(Router* router);

 private:
  using Shared = std::shared_ptr<Call>;
  Task<Answer> Metrics(Shared call);
  Task<Answer> MetricsOfMany(Shared call);
  Task<Answer> Logs(Shared call);
  Task<Answer> LogsVersionTwo(Shared call);
  Task<Answer> Health();
  Task<Answer> Ready();

  pool::Node* node_;
  MetricsSampler* sampler_;
};

}  // namespace cube::api

#endif  // CUBE_API_OBSERVATION_API_H_
