#include "pool/descriptor_reserve.h"

#include <fcntl.h>
#include <sys/resource.h>

#include "base/unique_fd.h"

namespace cube::pool {
namespace {

// A dozen requests at once, each with a connection, the pipes of a helper and what it opens.
constexpr rlim_t kReserve = 64;

}  // namespace

Outcome<Done> CheckDescriptors() {
  rlimit limit = {};
  // The least number that is free comes first.
  UniqueFd least(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return Done();
  if (least.valid() && static_cast<rlim_t>(least.get()) + kReserve <= limit.rlim_cur) return Done();
  return Refuse(Fault::kNoCapacity,
                "no capacity: of the %llu descriptors that cubed may have, no more than the %llu "
                "that are for what runs are left",
                static_cast<unsigned long long>(limit.rlim_cur),
                static_cast<unsigned long long>(kReserve));
}

}  // namespace cube::pool
