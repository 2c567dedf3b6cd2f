#ifndef CUBE_POOL_NODE_H_
#define CUBE_POOL_NODE_H_

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pool/node_context.h"
#include "pool/sandbox.h"
#include "pool/template_registry.h"
#include "pool/warm_pool.h"
#include "pool/zygote.h"

namespace cube::pool {

// What a client asks for. Exactly one of `template_name` and `snapshot`.
struct CreateRequest {
  std::string template_name;
  std::string snapshot;  // the id of one that a client has taken
  std::map<std::string, std::string> metadata;
  std::vector<std::string> environment;  // NAME=VALUE
  std::string token;                     // the sandbox's access token; may be empty
  std::optional<uint32_t> timeout_seconds;
  std::optional<OnTimeout> on_timeout;
  Limits limits;
  std::string annotation;
  net::Policy network;
  // Of a snapshot: beside those that it has.
  std::vector<VolumeMount> volumes;
};

// How a sandbox came to be.
struct Created {
  std::shared_ptr<Sandbox> sandbox;
  bool was_parked = false;
};

// One machine's templates, pools and sandboxes: what the control socket, and any other front end in
// this process, works with. On one thread; coroutines may overlap.
class Node {
 public:
  // `folder`: where node.db, snapshots and sockets are. Nothing runs before Start().
  static Result<std::unique_ptr<Node>> Create(asio::io_context& io, Config config,
                                              std::unique_ptr<Launcher> launcher);
  ~Node();

  // Finds what a daemon before this one has left, then begins to fill the pools.
  Task<Outcome<Done>> Start();
  // Pools and zygotes go; sandboxes live on.
  void Stop();

  Task<Outcome<Created>> Create(CreateRequest request);
  // kNotFound if there is none.
  Outcome<std::shared_ptr<Sandbox>> Find(const std::string& id) const;
  // `tokens`: of each clone, or none at all.
  Task<Outcome<std::vector<std::shared_ptr<Sandbox>>>> Fork(std::string id, uint32_t count,
                                                            std::vector<std::string> tokens);
  Outcome<Done> DeleteSnapshot(const std::string& id);
  // kConflict if a sandbox has the volume mounted, be it paused.
  Outcome<Done> CheckVolumeUnused(const std::string& volume) const;
  // Ends its pool and deletes it. kConflict while a sandbox or a client's snapshot builds on it.
  Task<Outcome<Done>> RemoveTemplate(std::string name);
  // No more creates. Then every sandbox is paused, or, if not `pause`, has ended by itself.
  Task<Outcome<Done>> Drain(bool pause);
  void Reload(Config config);
  // Of a request: the limits of the configuration.
  Outcome<Done> CheckTimeout(uint32_t seconds) const;

  struct TemplateState {
    std::shared_ptr<Zygote> zygote;
    std::shared_ptr<WarmPool> pool;
  };
  const std::map<std::string, TemplateState>& templates() const { return templates_; }
  const TemplateRegistry& registry() const { return registry_; }
  const std::map<std::string, std::shared_ptr<Sandbox>>& sandboxes() const { return sandboxes_; }
  NodeContext& context() { return *context_; }
  bool draining() const { return draining_; }
  uint64_t creates() const { return creates_; }
  uint64_t failed_creates() const { return failed_creates_; }

 private:
  Node(std::unique_ptr<NodeContext> context, std::string folder);

  // What is wrong with it. Its volumes are as CheckVolumeMounts() has them afterwards.
  Outcome<Done> Check(CreateRequest* request) const;
  SandboxRecord NewRecord(const CreateRequest& request) const;
  Task<Outcome<Created>> CreateFromTemplate(CreateRequest request);
  Task<Outcome<Created>> CreateFromSnapshot(CreateRequest request);
  Task<Outcome<Created>> CreateFrom(SnapshotRecord snapshot, CreateRequest request);
  Task<Outcome<std::vector<std::shared_ptr<Sandbox>>>> ForkBySnapshot(
      std::shared_ptr<Sandbox> parent, std::vector<std::string> tokens);
  Outcome<Done> Admit() const;
  void MakeRoom(uint64_t memory_mib, uint32_t cpus);
  void Discard(const std::shared_ptr<Vm>& vm);
  void OnTemplate(const TemplateEntry& entry, const char* change);
  TemplateState MakeTemplate(const TemplateEntry& entry);
  Task<void> Replace(TemplateEntry entry);
  void Remove(const std::string& name);
  void Tidy();
  Task<void> LookAfter();
  // node_recovery.cc
  void EndUnknown();
  Task<Outcome<Done>> Recover();

  std::unique_ptr<NodeContext> context_;
  std::string folder_;
  TemplateRegistry registry_;
  std::map<std::string, TemplateState> templates_;
  std::map<std::string, std::shared_ptr<Sandbox>> sandboxes_;
  std::multiset<std::string> held_;  // snapshots that are needed just now
  bool draining_ = false;
  bool stopped_ = false;
  bool recovered_ = false;  // machines of an earlier daemon that are wanted are known
  bool tidying_ = false;
  uint32_t creating_ = 0;  // under way
  uint64_t last_create_ = 0;
  uint64_t next_zygote_ = 0;
  std::map<std::pair<pid_t, uint64_t>, uint32_t> unknown_;  // pid, start: looks
  uint64_t creates_ = 0, failed_creates_ = 0;
  asio::steady_timer rounds_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_NODE_H_
