#ifndef CUBE_API_OBSERVATION_API_H_
#define CUBE_API_OBSERVATION_API_H_

#include <array>
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
  // A create was answered so, after so many milliseconds.
  void CountCreate(unsigned status, double ms);

 private:
  using Shared = std::shared_ptr<Call>;
  Task<Answer> Metrics(Shared call);
  Task<Answer> MetricsOfMany(Shared call);
  Task<Answer> Logs(Shared call);
  Task<Answer> LogsVersionTwo(Shared call);
  Task<Answer> Prometheus();
  Task<Answer> Health();
  Task<Answer> Ready();

  pool::Node* node_;
  MetricsSampler* sampler_;
  const Router* router_ = nullptr;
  // Creates that took at most 1, 2, 4, ... 4096 ms, and all others.
  static constexpr size_t kBuckets = 14;
  std::array<uint64_t, kBuckets> creates_ = {};
  double create_ms_ = 0;
};

}  // namespace cube::api

#endif  // CUBE_API_OBSERVATION_API_H_
