#include "vmm/ring0/x2apic.h"

#include "vmm/memory_map.h"

namespace cube::vmm::ring0 {

uint32_t InterruptTargets(uint64_t command, uint32_t self) {
  constexpr uint32_t kAll = (1u << kMaxCpus) - 1;
  constexpr uint32_t kLogical = 1 << 11;
  constexpr uint32_t kBroadcast = 0xffffffff;
  switch (command >> 18 & 3) {  // the shorthand
    case 1:
      return 1u << self;
    case 2:
      return kAll;
    case 3:
      return kAll & ~(1u << self);
    default:
      break;
  }
  auto destination = static_cast<uint32_t>(command >> 32);
  if (destination == kBroadcast) return kAll;
  if ((command & kLogical) == 0) return destination < kMaxCpus ? 1u << destination : 0;
  // A cluster of sixteen and a mask of its members (11.12.10.2); all vCPUs are in the first.
  static_assert(kMaxCpus <= 16);
  return destination >> 16 == 0 ? destination & kAll : 0;
}

}  // namespace cube::vmm::ring0
