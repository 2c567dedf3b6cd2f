#ifndef CUBE_NET_FIXED_SET_H_
#define CUBE_NET_FIXED_SET_H_

#include <cstdint>
#include <map>
#include <vector>

#include "base/result.h"
#include "net/policy.h"

namespace cube::net {

// What of IPv6 is global unicast (RFC 4291 section 2.4).
inline constexpr Network6 kGlobal6 = {Uint128{1} << 125, 3};

// The addresses that no sandbox's policy opens: loopback, link-local (the cloud's metadata service
// among them), RFC 1918, CGNAT (RFC 6598), multicast, reserved ones; of IPv6 all that is not global
// unicast, and of that what leads to IPv4 or is a protocol's own. An operator may except some;
// never those of the host itself.
template <typename N>
class FixedSetOf {
 public:
  using Entries = std::map<N, bool>;

  // `exceptions` are the operator's, `own` the host's. Which of the entries are denied.
  static Entries Make(const std::vector<N>& exceptions, const std::vector<N>& own);

  // `map`: `fixed` of Programs::Maps, or of Maps6.
  explicit FixedSetOf(int map) : map_(map) {}

  // Makes the kernel's set this one: new entries come before old ones go.
  Status Set(Entries entries);
  // Of the set as it is. In the host's order.
  bool IsDenied(decltype(N::address) address) const;

 private:
  int map_;
  Entries entries_;
};
using FixedSet = FixedSetOf<Network>;
using FixedSet6 = FixedSetOf<Network6>;

}  // namespace cube::net

#endif  // CUBE_NET_FIXED_SET_H_
