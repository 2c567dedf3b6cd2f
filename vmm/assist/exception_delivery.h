#ifndef CUBE_VMM_ASSIST_EXCEPTION_DELIVERY_H_
#define CUBE_VMM_ASSIST_EXCEPTION_DELIVERY_H_

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm_api.h"

namespace cube::vmm {

struct Exception {
  uint8_t vector;
  std::optional<uint32_t> error_code;
  // Set for a page fault: goes to CR2.
  std::optional<uint64_t> fault_address;
};

// Delivers an exception that ring 0 raised to ring 0, in 64-bit mode, through the guest's IDT as
// the processor would (Intel SDM volume 3, 6.14): gate, IST, aligned stack, frame, flags. `regs`
// must hold the RIP that the frame is to show. On error (no usable gate, unmapped stack: what ends
// in a double fault on a processor) nothing is changed.
Status DeliverException(const GuestMemory& memory, const Exception& exception, kvm_regs* regs,
                        kvm_sregs* sregs);

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_EXCEPTION_DELIVERY_H_
