#ifndef CUBE_API_ACCOUNT_API_H_
#define CUBE_API_ACCOUNT_API_H_

#include <memory>
#include <string>

#include "api/key_store.h"
#include "api/metrics_sampler.h"
#include "api/router.h"

namespace cube::api {

// Routes of who uses the node: the one team, which is whoever has a key, its numbers, and keys. An
// access token, which older clients have besides, is a key like others. On one thread.
class AccountApi {
 public:
  // All outlive it. `team`: its id.
  AccountApi(pool::Node* node, KeyStore* keys, MetricsSampler* sampler, std::string team)
      : node_(node), keys_(keys), sampler_(sampler), team_(std::move(team)) {}

  void AddTo(Router* router);

 private:
  using Shared = std::shared_ptr<Call>;
  Task<Answer> Teams(Shared call);
  Task<Answer> TeamMetrics(Shared call);
  Task<Answer> TeamMaximum(Shared call);
  Task<Answer> KillAll(Shared call);
  Task<Answer> Keys();
  Task<Answer> CreateKey(Shared call, const char* member);
  Task<Answer> RenameKey(Shared call);
  Task<Answer> RevokeKey(Shared call, const char* variable);
  pool::Outcome<std::vector<NodeSample>> Samples(const Call& call) const;

  pool::Node* node_;
  KeyStore* keys_;
  MetricsSampler* sampler_;
  std::string team_;
};

}  // namespace cube::api

#endif  // CUBE_API_ACCOUNT_API_H_
