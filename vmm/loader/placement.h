#ifndef CUBE_VMM_LOADER_PLACEMENT_H_
#define CUBE_VMM_LOADER_PLACEMENT_H_

#include <cinttypes>
#include <cstdint>
#include <span>
#include <type_traits>

#include "base/result.h"
#include "vmm/guest_memory.h"

namespace cube::vmm {

// Copies `bytes` to a fixed guest-physical address; `what` stands in the error if the guest has no
// memory there.
inline Status PlaceBytes(const GuestMemory& memory, uint64_t address,
                         std::span<const uint8_t> bytes, const char* what) {
  if (memory.Write(address, bytes)) return OkStatus();
  return Errorf("the guest has no memory at 0x%" PRIx64 " for the %zu bytes of the %s", address,
                bytes.size(), what);
}

template <typename T>
Status PlaceObject(const GuestMemory& memory, uint64_t address, const T& object,
                   const char* what) {
  static_assert(std::is_trivially_copyable_v<T>);
  return PlaceBytes(memory, address, {reinterpret_cast<const uint8_t*>(&object), sizeof object},
                    what);
}

}  // namespace cube::vmm

#endif  // CUBE_VMM_LOADER_PLACEMENT_H_
