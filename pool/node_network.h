#ifndef CUBE_POOL_NODE_NETWORK_H_
#define CUBE_POOL_NODE_NETWORK_H_

#include <map>
#include <memory>
#include <string>

#include "net/fabric.h"
#include "net/peek_proxy.h"
#include "net/reaper.h"
#include "net/resolver.h"
#include "net/trace.h"
#include "pool/async.h"
#include "pool/config.h"
#include "pool/outcome.h"

namespace cube::pool {

// The network of the node's sandboxes: the fabric, what serves guests beside it, and what looks
// after it. On one thread.
class NodeNetwork {
 public:
  // An error says what the host lacks; then sandboxes have no network.
  static Result<std::unique_ptr<NodeNetwork>> Open(asio::io_context& io,
                                                   const NetworkConfig& config);
  ~NodeNetwork();

  // Has the policy in force for a sandbox whose machine is about to start, and gives the TAP for
  // it.
  Outcome<UniqueFd> Attach(const std::string& id, const net::Policy& policy);
  // The sandbox runs already and may have its TAP: one that a daemon before this one has begun.
  Outcome<Done> Adopt(const std::string& id, const net::Policy& policy);
  // While it runs. A sandbox without a network is no error: it has it when it starts.
  Outcome<Done> SetPolicy(const std::string& id, const net::Policy& policy);
  void Release(const std::string& id);

  // Verdicts of the programs, of refusals or, if `all`, of everything; waits so long for the first.
  Task<std::vector<net::bpf::trace_event>> AwaitVerdicts(bool all, milliseconds limit);

  net::Fabric& fabric() { return *fabric_; }
  const net::Reaper& reaper() const { return reaper_; }
  const net::Resolver& resolver() const { return *resolver_; }
  const net::PeekProxy& proxy() const { return *proxy_; }

 private:
  NodeNetwork(asio::io_context& io, std::unique_ptr<net::Fabric> fabric, uint32_t taps);
  Task<void> LookAfter();

  asio::io_context& io_;
  std::unique_ptr<net::Fabric> fabric_;
  uint32_t taps_;
  net::Reaper reaper_;
  std::unique_ptr<net::Trace> trace_;
  uint64_t traced_until_ = 0;  // CLOCK_MONOTONIC nanoseconds
  std::shared_ptr<net::Resolver> resolver_;
  std::shared_ptr<net::PeekProxy> proxy_;
  asio::steady_timer rounds_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_NODE_NETWORK_H_
