#include "vmm/ring0/page_flags.h"

#include <sys/mman.h>

namespace cube::vmm::ring0 {

Result<PageFlags> PageFlags::Create(uint64_t end) {
  uint64_t pages = (end + kPageSize - 1) / kPageSize;
  uint64_t size = (pages + kPageSize - 1) / kPageSize * kPageSize;
  CUBE_ASSIGN(Mapping bytes,
              Mapping::Map(size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, "page flags"));
  return PageFlags(std::move(bytes));
}

}  // namespace cube::vmm::ring0
