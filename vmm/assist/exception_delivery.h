#ifndef CUBE_VMM_ASSIST_EXCEPTION_DELIVERY_H_
#define CUBE_VMM_ASSIST_EXCEPTION_DELIVERY_H_

#include <cstdint>
#include <optional>

#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm_api.h"

namespace cube::vmm {

struct Exception {
  uint8_t vector;
  std::optional<uint32_t> error_code;
  // Set for a page fault: goes to CR2.
  std::optional<uint64_t> fault_address;
  // Set for INT n and INT3: the instruction's length. The frame shows the one after it.
  uint8_t software_length = 0;
};

// Delivers an exception or interrupt to ring 0, in 64-bit mode, from the privilege level of `sregs`, through the guest's IDT as
// the processor would (Intel SDM volume 3, 6.14): gate, IST, aligned stack, frame, flags. `regs`
// holds the RIP of the instruction that raised it. What delivery itself raises, for want of a gate
// or a stack, is delivered in its place, or as a double fault (6.15, interrupt 8). False if that
// fails too: the processor would shut down.
bool DeliverException(const GuestMemory& memory, Exception exception, kvm_regs* regs,
                      kvm_sregs* sregs);

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_EXCEPTION_DELIVERY_H_
