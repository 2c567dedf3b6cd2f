#ifndef CUBE_SNAPSHOT_PAGE_SCAN_H_
#define CUBE_SNAPSHOT_PAGE_SCAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "snapshot/memory_file.h"
#include "vmm/guest_memory.h"

namespace cube::snapshot {

// Finds the pages of a private mapping that this process has made its own by writing to them: the
// ones in which a clone differs from the image it maps. By the ioctl PAGEMAP_SCAN (Linux 6.7,
// Documentation/admin-guide/mm/pagemap.rst), or else by reading /proc/self/pagemap.
class PageScan {
 public:
  enum class Method { kBest, kPagemap };
  static Result<PageScan> Open(Method method = Method::kBest);

  // Of private pages: all, or those that are not part of a huge page, which only the ioctl tells.
  enum class Which { kAll, kSmall };
  // Appends the runs of private pages of `memory`, which begins at `image_offset` of the image;
  // sorted, adjacent ones joined. Swapped-out pages count.
  Status Find(std::span<const uint8_t> memory, uint64_t image_offset, std::vector<PageRun>* runs,
              Which which = Which::kAll);

  bool uses_ioctl() const { return ioctl_; }

 private:
  PageScan(UniqueFd pagemap, bool with_ioctl) : pagemap_(std::move(pagemap)), ioctl_(with_ioctl) {}
  Status FindByIoctl(std::span<const uint8_t> memory, uint64_t image_offset,
                     std::vector<PageRun>* runs, Which which);
  Status FindByPagemap(std::span<const uint8_t> memory, uint64_t image_offset,
                       std::vector<PageRun>* runs);

  UniqueFd pagemap_;
  bool ioctl_;
};

// The same of a whole machine's memory, as runs of its image. Runs of two regions stay apart: their
// host memory does not continue. Of memory without an image it is all that has been touched.
Result<std::vector<PageRun>> PrivateRuns(const vmm::GuestMemory& memory);

// The same runs, sorted, cut where a region of `memory` ends, so that each can be mapped.
std::vector<PageRun> MappableRuns(const vmm::GuestMemory& memory, std::span<const PageRun> runs);

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_PAGE_SCAN_H_
