#ifndef CUBE_API_NODE_API_H_
#define CUBE_API_NODE_API_H_

#include <memory>
#include <string>

#include "api/router.h"
#include "base/json_writer.h"
#include "pool/node.h"

namespace cube::api {

// Routes about the machine, which is the only one that this control plane has. On one thread.
class NodeApi {
 public:
  // `node` outlives it. `id`: of the machine, kept. `service`: of this process.
  NodeApi(pool::Node* node, std::string id, std::string service)
      : node_(node), id_(std::move(id)), service_(std::move(service)) {}

  void AddTo(Router* router);

 private:
  using Shared = std::shared_ptr<Call>;
  // Time of all processors, in ticks.
  struct ProcessorTime {
    uint64_t all = 0, idle = 0;
  };

  Task<Answer> List();
  Task<Answer> Info(Shared call);
  Task<Answer> SetStatus(Shared call);
  Task<void> Drain();
  pool::Outcome<pool::Done> CheckId(const Call& call) const;
  const char* Status() const { return node_->draining() ? "draining" : "ready"; }
  void AddCommon(JsonWriter* json);
  void AddMetrics(JsonWriter* json);

  pool::Node* node_;
  std::string id_, service_;
  ProcessorTime before_;
};

}  // namespace cube::api

#endif  // CUBE_API_NODE_API_H_
