#include "vmm/loader/initrd_loader.h"

#include <fcntl.h>

#include <algorithm>
#include <cinttypes>
#include <optional>
#include <span>

#include "base/byte_io.h"
#include "base/unique_fd.h"
#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

constexpr uint64_t kLargePage = 2 * kMiB;

constexpr uint64_t PageDown(uint64_t value) { return value / kPageSize * kPageSize; }

// The whole pages between two addresses.
struct Gap {
  Gap(uint64_t from, uint64_t to) : end(PageDown(to)), size(0) {
    uint64_t start = PageDown(from + kPageSize - 1);
    if (end > start) size = end - start;
  }

  uint64_t end;
  uint64_t size;
};

}  // namespace

Result<Initrd> LoadInitrd(const std::string& path, const GuestMemory& memory,
                          const LoadedKernel& kernel) {
  const std::string what = "initrd " + path;
  // Non-blocking, so that a FIFO is an error and not a wait for its writer.
  Result<UniqueFd> fd = OpenFile(path, O_RDONLY | O_NONBLOCK);
  if (!fd.ok()) return Error(fd.error()).Wrap("initrd");
  CUBE_ASSIGN(uint64_t size, RegularFileSize(fd->get(), what.c_str()));
  if (size == 0) return Errorf("%s: the file is empty", what.c_str());

  const uint64_t top = std::min(memory.low_ram_end(), kInitrdAddressMax + 1);
  Gap above(std::max(kernel.end, kHighMemoryStart), top);
  // Linux maps its memory downwards from the highest free 2 MiB; with the initrd in them it takes a
  // turn more, 190,000 instructions.
  const Gap roomy(std::max(kernel.end, kHighMemoryStart), top / kLargePage * kLargePage - kLargePage);
  if (size <= roomy.size) above = roomy;
  const Gap below(kHighMemoryStart, std::min(kernel.start, top));
  const Gap& gap = size <= above.size ? above : below;
  std::optional<std::span<uint8_t>> target;
  const uint64_t address = size <= gap.size ? PageDown(gap.end - size) : 0;
  if (size <= gap.size) target = memory.Slice(address, size);
  if (!target) {
    return Errorf("%s: %" PRIu64 " bytes do not fit in the guest, which has %" PRIu64
                  " left for it",
                  what.c_str(), size, std::max(above.size, below.size));
  }
  CUBE_TRY(ReadExactAt(fd->get(), *target, 0, what.c_str()));
  return Initrd{address, size};
}

}  // namespace cube::vmm
