#ifndef CUBE_POOL_JAIL_UID_RANGE_H_
#define CUBE_POOL_JAIL_UID_RANGE_H_

#include <cstdint>
#include <set>

#include "pool/outcome.h"

namespace cube::pool {

// Users of the host that are no one's but jailed processes', one for each. The first is the
// zygotes'. Nothing is kept here that outlives the daemon: who has which is told by the owners of
// their folders.
class UidRange {
 public:
  UidRange(uint32_t first, uint32_t count) : first_(first), count_(count), next_(first + 1) {}

  uint32_t first() const { return first_; }
  uint32_t count() const { return count_; }
  // One that nobody has, and which was not given back just now if there are others.
  Outcome<uint32_t> Take();
  // One that somebody has already; nothing if it is not of the range.
  void Mark(uint32_t uid);
  void Give(uint32_t uid) { taken_.erase(uid); }
  size_t taken() const { return taken_.size(); }

 private:
  uint32_t first_, count_, next_;
  std::set<uint32_t> taken_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_JAIL_UID_RANGE_H_
