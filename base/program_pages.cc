#include "base/program_pages.h"

#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace cube {

void ReleaseProgramPages() {
  auto release = [](dl_phdr_info* program, size_t, void*) -> int {
    const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    for (int i = 0; i < program->dlpi_phnum; ++i) {
      const ElfW(Phdr)& segment = program->dlpi_phdr[i];
      // A page that was written would be lost; those of a segment without PF_W cannot be.
      if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
      const uint64_t start = program->dlpi_addr + segment.p_vaddr;
      const uint64_t end = start + segment.p_memsz;
      // Both ends are inside the mapping: a segment is mapped in whole pages.
      const uint64_t first = start / page * page;
      // A refusal costs memory, nothing else.
      (void)madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
    }
    return 1;  // the first is the program itself
  };
  dl_iterate_phdr(release, nullptr);
}

}  // namespace cube
