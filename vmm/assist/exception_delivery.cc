#include "vmm/assist/exception_delivery.h"

#include <array>

#include "vmm/assist/guest_virtual.h"
#include "vmm/paging.h"
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
constexpr uint64_t kTssRsp0 = 0x04;
constexpr uint64_t kTssIst1 = 0x24;

bool IsContributory(const Exception& exception) {
  if (exception.software_length != 0) return false;
  return exception.vector == kVectorDivideError ||
         (exception.vector >= kVectorInvalidTss && exception.vector <= kVectorGeneralProtection);
}
bool IsPageFault(const Exception& exception) {
  return exception.software_length == 0 && exception.vector == kVectorPageFault;
}
bool IsDoubleFault(const Exception& exception) {
  return exception.software_length == 0 && exception.vector == kVectorDoubleFault;
}

// Whether the frame shows RF, so that the handler returns past a breakpoint that has been hit (SDM
// volume 3, 17.3.1.1): faults, but neither traps nor aborts nor interrupts.
bool SetsResumeFlag(const Exception& exception) {
  if (exception.software_length != 0 || exception.vector >= kFirstInterrupt) return false;
  switch (exception.vector) {
    case kVectorDebug:
    case kVectorNmi:
    case kVectorBreakpoint:
    case kVectorOverflow:
    case kVectorDoubleFault:
    case kVectorMachineCheck:
      return false;
    default:
      return true;
  }
}

// Whether two exceptions, the second raised while the first was delivered, make a double fault
// (SDM volume 3, table 6-5).
bool MakeDoubleFault(const Exception& first, const Exception& second) {
  if (IsPageFault(first)) return true;
  return IsContributory(first) && IsContributory(second);
}

Exception FromPageFault(const PageFault& fault, uint8_t otherwise) {
  if (!IsCanonical(fault.address)) return {otherwise, 0, std::nullopt};
  return {kVectorPageFault, fault.error_code, fault.address};
}

// Delivers `exception`, or changes nothing and returns what that raises.
std::optional<Exception> Deliver(const GuestMemory& memory, const Exception& exception,
                                 kvm_regs* regs, kvm_sregs* sregs) {
  GuestVirtual guest(memory, *sregs, regs->rflags);
  PageFault fault = {};
  // An error code that names a gate (6.13): of the IDT, and whether the program asked for it.
  uint32_t gate_error = exception.vector * 8u | 2 | (exception.software_length == 0 ? 1 : 0);
  uint64_t offset = exception.vector * sizeof(Gate);
  if (offset + sizeof(Gate) - 1 > sregs->idt.limit) {
    return Exception{kVectorGeneralProtection, gate_error, std::nullopt};
  }
  Gate gate;
  if (!guest.Read(sregs->idt.base + offset, {reinterpret_cast<uint8_t*>(&gate), sizeof gate},
                  &fault)) {
    return FromPageFault(fault, kVectorGeneralProtection);
  }
  uint8_t type = gate.attributes & kGateTypeMask;
  if (type != kInterruptGate && type != kTrapGate) {
    return Exception{kVectorGeneralProtection, gate_error, std::nullopt};
  }
  // INT n may only pass gates of its own privilege.
  if (exception.software_length != 0 && (gate.attributes >> 5 & 3) < sregs->cs.dpl) {
    return Exception{kVectorGeneralProtection, gate_error, std::nullopt};
  }
  if ((gate.attributes & kGatePresent) == 0) {
    return Exception{kVectorSegmentNotPresent, gate_error, std::nullopt};
  }
  uint64_t stack = regs->rsp;
  bool from_user = sregs->cs.dpl == 3;
  if ((gate.ist & 7) != 0 || from_user) {
    uint64_t slot = sregs->tr.base +
                    ((gate.ist & 7) != 0 ? kTssIst1 + 8 * ((gate.ist & 7) - 1u) : kTssRsp0);
    if (!guest.Read(slot, {reinterpret_cast<uint8_t*>(&stack), sizeof stack}, &fault)) {
      return FromPageFault(fault, kVectorInvalidTss);
    }
  }
  std::array<uint64_t, 6> frame = {exception.error_code.value_or(0),
                                   regs->rip + exception.software_length,
                                   sregs->cs.selector,
                                   regs->rflags | (SetsResumeFlag(exception) ? kFlagResume : 0),
                                   regs->rsp,
                                   sregs->ss.selector};
  size_t skip = exception.error_code ? 0 : 1;
  size_t size = (frame.size() - skip) * 8;
  stack = (stack & ~15ull) - size;
  if (!guest.Write(stack, {reinterpret_cast<const uint8_t*>(frame.data() + skip), size}, &fault)) {
    return FromPageFault(fault, kVectorStackFault);
  }
  regs->rsp = stack;
  regs->rip = gate.offset_low | static_cast<uint64_t>(gate.offset_middle) << 16 |
              static_cast<uint64_t>(gate.offset_high) << 32;
  regs->rflags &= ~(kFlagTrap | kFlagNestedTask | kFlagResume | kFlagVirtual8086);
  if (type == kInterruptGate) regs->rflags &= ~kFlagInterrupt;
  sregs->cs = LongModeCode(static_cast<uint16_t>(gate.selector & ~3), 0);
  // A change of privilege loads SS with the null selector (6.14.2).
  if (from_user) {
    sregs->ss = LongModeData(0, 0);
  }
  return std::nullopt;
}

}  // namespace

bool DeliverException(const GuestMemory& memory, Exception exception, kvm_regs* regs,
                      kvm_sregs* sregs) {
  while (true) {
    if (exception.fault_address) sregs->cr2 = *exception.fault_address;
    std::optional<Exception> raised = Deliver(memory, exception, regs, sregs);
    if (!raised) return true;
    if (IsDoubleFault(exception)) return false;
    exception = MakeDoubleFault(exception, *raised)
                    ? Exception{kVectorDoubleFault, 0, std::nullopt}
                    : *raised;
  }
}

}  // namespace cube::vmm
