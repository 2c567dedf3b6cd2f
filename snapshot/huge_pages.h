#ifndef CUBE_SNAPSHOT_HUGE_PAGES_H_
#define CUBE_SNAPSHOT_HUGE_PAGES_H_

#include <cstdint>
#include <span>

#include "base/result.h"
#include "snapshot/memory_file.h"
#include "vmm/guest_memory.h"

namespace cube::snapshot {

// What CollapsePrivate() has done, in bytes.
struct Collapsed {
  uint64_t done = 0;
  uint64_t left = 0;  // beyond the limit
};

// Has the host make huge pages (MADV_COLLAPSE, Linux 6.1) of the private pages of `memory` where
// they fill whole ones, at most `limit` bytes: a fork of this process, for which a guest stands
// still, then has one page-table entry to copy instead of 512, and so has a rollback to drop. It
// costs copying those pages, and takes no memory in the end. The guest may run.
//
// Only within `stretches` of the image, sorted, which are mapped without a file. Where PAGEMAP_SCAN
// is not known (before Linux 6.7) nothing is done.
Result<Collapsed> CollapsePrivate(const vmm::GuestMemory& memory,
                                  std::span<const PageRun> stretches, uint64_t limit);

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_HUGE_PAGES_H_
