#ifndef CUBE_VMM_RING0_RING0_CACHES_H_
#define CUBE_VMM_RING0_RING0_CACHES_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "base/result.h"
#include "vmm/ring0/code_cache.h"
#include "vmm/ring0/page_flags.h"

namespace cube::vmm::ring0 {

// What an engine has decoded, apart from the VM it was decoded for: another one with the same memory
// can go on with it, in a child of a fork for one, which shares it until it decodes more.
struct Ring0Caches {
  // Empty, for guest-physical addresses below `end`.
  static Result<Ring0Caches> Create(uint64_t end) {
    CUBE_ASSIGN(PageFlags flags, PageFlags::Create(end));
    CUBE_ASSIGN(CodeCache code, CodeCache::Create());
    return Ring0Caches{std::move(flags), std::move(code), {}};
  }

  PageFlags flags;  // of pages with code, none else
  CodeCache code;
  std::vector<uint32_t> ram_pieces = {};  // the RAM that KVM was given (RamSlots)
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_RING0_CACHES_H_
