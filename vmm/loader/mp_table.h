#ifndef CUBE_VMM_LOADER_MP_TABLE_H_
#define CUBE_VMM_LOADER_MP_TABLE_H_

#include <cstdint>

#include "base/result.h"
#include "vmm/guest_memory.h"

namespace cube::vmm {

// Writes the tables by which a guest without ACPI finds its CPUs and interrupts (Intel
// MultiProcessor Specification 1.4) to kMpTableAddress: `cpus` processors with local APIC ids from
// 0, the first one the boot CPU; an ISA bus; an I/O APIC whose id is `cpus`, with ISA interrupt n
// on pin n, but 0, the timer, on pin 2. Errors: `cpus` not between 1 and kMaxCpus.
Status WriteMpTable(uint32_t cpus, const GuestMemory& memory);

}  // namespace cube::vmm

#endif  // CUBE_VMM_LOADER_MP_TABLE_H_
