#include "snapshot/huge_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <vector>

#include "snapshot/page_scan.h"

namespace cube::snapshot {
namespace {

constexpr uint64_t kHugePage = 2 << 20;
// <sys/mman.h> of Debian 12 does not have it.
constexpr int kMadvCollapse = 25;

// Of whole huge pages. The advice allows it where the host makes none unasked, and is taken back so
// that what is given up and touched again comes page by page.
Status Collapse(uint8_t* pages, uint64_t size) {
  if (madvise(pages, size, MADV_HUGEPAGE) < 0) return ErrnoError("MADV_HUGEPAGE");
  int result = madvise(pages, size, kMadvCollapse);
  int error = errno;
  (void)madvise(pages, size, MADV_NOHUGEPAGE);
  errno = error;
  return result < 0 ? Status(ErrnoError("MADV_COLLAPSE")) : OkStatus();
}

}  // namespace

Result<Collapsed> CollapsePrivate(const vmm::GuestMemory& memory,
                                  std::span<const PageRun> stretches, uint64_t limit) {
  CUBE_ASSIGN(PageScan scan, PageScan::Open());
  Collapsed sum;
  if (!scan.uses_ioctl()) return sum;
  for (const PageRun& stretch : MappableRuns(memory, stretches)) {
    auto host = memory.ImageSlice(stretch.start, stretch.size);
    if (!host) return Errorf("a stretch of memory crosses regions");
    std::vector<PageRun> runs;
    // As host addresses, which are what huge pages are aligned by.
    CUBE_TRY(
        scan.Find(*host, reinterpret_cast<uint64_t>(host->data()), &runs, PageScan::Which::kSmall));
    for (const PageRun& run : runs) {
      uint64_t begin = (run.start + kHugePage - 1) / kHugePage * kHugePage;
      uint64_t end = (run.start + run.size) / kHugePage * kHugePage;
      if (begin >= end) continue;
      uint64_t size = std::min(end - begin, limit - sum.done);
      sum.left += end - begin - size;
      if (size == 0) continue;
      CUBE_TRY(Collapse(reinterpret_cast<uint8_t*>(begin), size));
      sum.done += size;
    }
  }
  return sum;
}

}  // namespace cube::snapshot
