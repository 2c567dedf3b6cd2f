#ifndef CUBE_NET_FIXED_SET_H_
#define CUBE_NET_FIXED_SET_H_

#include <cstdint>
#include <map>
#include <vector>

#include "base/result.h"
#include "net/policy.h"

namespace cube::net {

// The addresses that no sandbox's policy opens: loopback, link-local (the cloud's metadata service
// among them), RFC 1918, CGNAT (RFC 6598), multicast, reserved ones. An operator may except some;
// never those of the host itself.
class FixedSet {
 public:
  // `exceptions` are the operator's, `own` the host's. Which of the entries are denied.
  static std::map<Network, bool> Entries(const std::vector<Network>& exceptions,
                                         const std::vector<Network>& own);

  // `map`: Programs::Maps::fixed.
  explicit FixedSet(int map) : map_(map) {}

  // Makes the kernel's set this one: new entries come before old ones go.
  Status Set(std::map<Network, bool> entries);
  // Of the set as it is.
  bool IsDenied(uint32_t address) const;

 private:
  int map_;
  std::map<Network, bool> entries_;
};

}  // namespace cube::net

#endif  // CUBE_NET_FIXED_SET_H_
