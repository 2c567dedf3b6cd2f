#ifndef CUBE_VMM_RING0_X2APIC_H_
#define CUBE_VMM_RING0_X2APIC_H_

#include <cstdint>

// The local APIC's registers as MSRs (Intel SDM volume 3, 11.12).
namespace cube::vmm::ring0 {

inline constexpr uint32_t kMsrX2ApicFirst = 0x800;
inline constexpr uint32_t kMsrX2ApicLast = 0x8ff;
inline constexpr uint32_t kMsrX2ApicEndOfInterrupt = 0x80b;
inline constexpr uint32_t kMsrX2ApicCommand = 0x830;
inline constexpr uint32_t kMsrX2ApicSelf = 0x83f;

// The vCPUs (bits by number, which is their APIC's) that a command sent by `self` is for.
uint32_t InterruptTargets(uint64_t command, uint32_t self);

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_X2APIC_H_
