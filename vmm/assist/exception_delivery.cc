#include "vmm/assist/exception_delivery.h"

#include <array>
#include <cstring>

#include "vmm/assist/guest_virtual.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

// A 64-bit IDT gate (SDM volume 3, figure 6-8).
struct Gate {
  uint16_t offset_low;
  uint16_t selector;
  uint8_t ist;
  uint8_t attributes;
  uint16_t offset_middle;
  uint32_t offset_high;
  uint32_t reserved;
};
static_assert(sizeof(Gate) == 16);

constexpr uint8_t kGatePresent = 0x80;
constexpr uint8_t kGateTypeMask = 0x1f;
constexpr uint8_t kInterruptGate = 0x0e;
constexpr uint8_t kTrapGate = 0x0f;
constexpr uint64_t kTssIst1 = 0x24;

}  // namespace

Status DeliverException(const GuestMemory& memory, const Exception& exception, kvm_regs* regs,
                        kvm_sregs* sregs) {
  if (sregs->cs.dpl != 0) return Errorf("exception %u was raised by user mode", exception.vector);
  GuestVirtual guest(memory, *sregs, regs->rflags);
  PageFault fault = {};
  uint64_t offset = exception.vector * sizeof(Gate);
  if (offset + sizeof(Gate) - 1 > sregs->idt.limit) {
    return Errorf("exception %u is beyond the IDT's limit %#x", exception.vector,
                  sregs->idt.limit);
  }
  Gate gate;
  if (!guest.Read(sregs->idt.base + offset, {reinterpret_cast<uint8_t*>(&gate), sizeof gate},
                  &fault)) {
    return Errorf("the IDT's gate %u is not mapped", exception.vector);
  }
  uint8_t type = gate.attributes & kGateTypeMask;
  if ((gate.attributes & kGatePresent) == 0 || (type != kInterruptGate && type != kTrapGate)) {
    return Errorf("the IDT's gate %u is not an interrupt or trap gate", exception.vector);
  }
  uint64_t stack = regs->rsp;
  if ((gate.ist & 7) != 0) {
    uint64_t slot = sregs->tr.base + kTssIst1 + 8 * ((gate.ist & 7) - 1u);
    if (!guest.Read(slot, {reinterpret_cast<uint8_t*>(&stack), sizeof stack}, &fault)) {
      return Errorf("stack %u of the TSS is not mapped", gate.ist & 7);
    }
  }
  std::array<uint64_t, 6> frame = {exception.error_code.value_or(0),
                                   regs->rip,
                                   sregs->cs.selector,
                                   regs->rflags,
                                   regs->rsp,
                                   sregs->ss.selector};
  size_t skip = exception.error_code ? 0 : 1;
  size_t size = (frame.size() - skip) * 8;
  stack = (stack & ~15ull) - size;
  if (!guest.Write(stack, {reinterpret_cast<const uint8_t*>(frame.data() + skip), size}, &fault)) {
    return Errorf("no stack for exception %u: %#llx is not mapped", exception.vector,
                  static_cast<unsigned long long>(fault.address));
  }
  regs->rsp = stack;
  regs->rip = gate.offset_low | static_cast<uint64_t>(gate.offset_middle) << 16 |
              static_cast<uint64_t>(gate.offset_high) << 32;
  regs->rflags &= ~(kFlagTrap | kFlagNestedTask | kFlagResume | kFlagVirtual8086);
  if (type == kInterruptGate) regs->rflags &= ~kFlagInterrupt;
  sregs->cs = LongModeCode(static_cast<uint16_t>(gate.selector & ~3), 0);
  if (exception.fault_address) sregs->cr2 = *exception.fault_address;
  return OkStatus();
}

}  // namespace cube::vmm
