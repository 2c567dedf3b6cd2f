#ifndef CUBE_POOL_NETWORK_CONTROL_H_
#define CUBE_POOL_NETWORK_CONTROL_H_

#include <map>
#include <string>
#include <vector>

#include "pool/outcome.h"

namespace cube::pool {

// What a sandbox may reach from inside. What is allowed goes before what is denied; what neither
// list has is allowed.
struct NetworkPolicy {
  std::vector<std::string> allow_out;  // addresses, a.b.c.d[/n], or names, *.example.com
  std::vector<std::string> deny_out;   // addresses, a.b.c.d[/n]

  bool operator==(const NetworkPolicy&) const = default;
};

// The node's network, of which a policy of a sandbox is one. A node whose sandboxes have no network
// has no such object: there whatever is denied is denied.
class NetworkControl {
 public:
  virtual ~NetworkControl() = default;

  // From here on, for connections that are there as well. Called before the sandbox's vCPUs run,
  // and whenever a client changes it. A process that goes on from a pause has the last one.
  virtual Outcome<Done> SetPolicy(const std::string& sandbox, const NetworkPolicy& policy) = 0;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_NETWORK_CONTROL_H_
