#include "pool/jail/uid_range.h"

namespace cube::pool {

Outcome<uint32_t> UidRange::Take() {
  for (uint32_t tries = 1; tries < count_; ++tries) {
    uint32_t uid = next_;
    next_ = next_ + 1 < first_ + count_ ? next_ + 1 : first_ + 1;
    if (taken_.insert(uid).second) return uid;
  }
  return Refuse(Fault::kNoCapacity,
                "no capacity: all %u users of jails are in use (jail.uid_count)", count_ - 1);
}

void UidRange::Mark(uint32_t uid) {
  if (uid > first_ && uid - first_ < count_) taken_.insert(uid);
}

}  // namespace cube::pool
