#ifndef CUBE_POOL_NETWORK_CONTROL_H_
#define CUBE_POOL_NETWORK_CONTROL_H_

#include <string>
#include <vector>

namespace cube::pool {

// What a sandbox may reach from inside. What is allowed goes before what is denied; what neither
// list has is allowed.
struct NetworkPolicy {
  std::vector<std::string> allow_out;  // addresses, a.b.c.d[/n], or names, *.example.com
  std::vector<std::string> deny_out;   // addresses, a.b.c.d[/n]

  bool operator==(const NetworkPolicy&) const = default;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_NETWORK_CONTROL_H_
