#include "pool/descriptor_reserve.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/unique_fd.h"

namespace cube::pool {
namespace {

// A dozen requests at once, each with a connection, the pipes of a helper and what it opens.
constexpr rlim_t kReserve = 64;

// How many are open, or more: Linux 6.2 tells as the size of that folder, and before it the least
// number that is free says how many are in a row.
rlim_t OpenDescriptors(rlim_t limit) {
  struct stat folder = {};
  if (stat("/proc/self/fd", &folder) == 0 && folder.st_size > 0) {
    return static_cast<rlim_t>(folder.st_size);
  }
  UniqueFd least(open("/dev/null", O_RDONLY | O_CLOEXEC));
  return least.valid() ? static_cast<rlim_t>(least.get()) : limit;
}

}  // namespace

Outcome<Done> CheckDescriptors() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return Done();
  if (OpenDescriptors(limit.rlim_cur) + kReserve <= limit.rlim_cur) return Done();
  return Refuse(Fault::kNoCapacity,
                "no capacity: of the %llu descriptors that cubed may have, no more than the %llu "
                "that are for what runs are left",
                static_cast<unsigned long long>(limit.rlim_cur),
                static_cast<unsigned long long>(kReserve));
}

}  // namespace cube::pool
