#include "vmm/assist/syscall_repair.h"

#include <cstring>

#include "vmm/assist/exception_delivery.h"
#include "vmm/assist/guest_virtual.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

// What the processor pushes for an exception (SDM volume 3, figure 6-9), for a page fault above an
// error code.
struct Frame {
  uint64_t rip;
  uint64_t cs;
  uint64_t rflags;
  uint64_t rsp;
  uint64_t ss;
};

bool Peek(const GuestVirtual& guest, uint64_t address, Frame* frame) {
  auto bytes = std::span(reinterpret_cast<uint8_t*>(frame), sizeof *frame);
  return guest.PeekBytes(address, bytes) == sizeof *frame;
}

// Where the gate of `vector` leads, 0 if there is no IDT yet.
uint64_t HandlerOf(const GuestVirtual& guest, const kvm_sregs& sregs, uint8_t vector) {
  uint8_t gate[16];
  if (guest.PeekBytes(sregs.idt.base + vector * sizeof gate, gate) < sizeof gate) return 0;
  uint16_t low, middle;
  uint32_t high;
  memcpy(&low, gate, 2);
  memcpy(&middle, gate + 6, 2);
  memcpy(&high, gate + 8, 4);
  return low | static_cast<uint64_t>(middle) << 16 | static_cast<uint64_t>(high) << 32;
}

// Flags that no SYSCALL can leave set whatever the mask says.
constexpr uint64_t kNeverAfterSyscall = kFlagResume | kFlagVirtual8086;

}  // namespace

Status SyscallRepair::OnMsrWritten(KvmVcpu* vcpu, uint32_t index, uint64_t value) {
  switch (index) {
    case kMsrStar:
      star_ = value;
      break;
    case kMsrSyscallMask:
      flag_mask_ = value;
      break;
    case kMsrLstar:
      lstar_ = value;
      return Arm(vcpu);
    default:
      break;
  }
  return OkStatus();
}

Status SyscallRepair::Arm(KvmVcpu* vcpu) {
  CUBE_ASSIGN(const kvm_regs* regs, vcpu->regs());
  CUBE_ASSIGN(const kvm_sregs* sregs, vcpu->sregs());
  GuestVirtual guest(memory_, *sregs, regs->rflags);
  // An IDT that is not there yet is met again at the next write of LSTAR; Linux loads it before.
  uint64_t handler = HandlerOf(guest, *sregs, kVectorPageFault);
  if (handler == 0) return OkStatus();
  handler_ = handler;
  invalid_handler_ = HandlerOf(guest, *sregs, kVectorInvalidOpcode);
  return SetBreakpoint(vcpu, false);
}

Status SyscallRepair::SetBreakpoint(KvmVcpu* vcpu, bool step) {
  kvm_guest_debug debug = {};
  debug.control = KVM_GUESTDBG_ENABLE;
  if (step) {
    debug.control |= KVM_GUESTDBG_SINGLESTEP;
  } else {
    debug.control |= KVM_GUESTDBG_USE_HW_BP;
    debug.arch.debugreg[0] = handler_;
    debug.arch.debugreg[1] = invalid_handler_;
    // Global enable of DR0 and DR1, execution (SDM volume 3, 17.2.4).
    debug.arch.debugreg[7] = invalid_handler_ != 0 ? 0x40a : 0x402;
  }
  stepping_ = step;
  return vcpu->SetGuestDebug(debug);
}

Result<SyscallRepair::Outcome> SyscallRepair::OnDebug(KvmVcpu* vcpu) {
  CUBE_ASSIGN(const kvm_regs* regs, vcpu->regs());
  if (regs->rip == 0) return Outcome::kNotMine;
  if (regs->rip == handler_) return OnPageFault(vcpu);
  if (regs->rip == invalid_handler_) return OnInvalidOpcode(vcpu);
  return Outcome::kNotMine;
}

Result<SyscallRepair::Outcome> SyscallRepair::OnPageFault(KvmVcpu* vcpu) {
  CUBE_ASSIGN(const kvm_regs* regs, vcpu->regs());
  CUBE_ASSIGN(const kvm_sregs* sregs, vcpu->sregs());
  GuestVirtual guest(memory_, *sregs, regs->rflags);
  Frame frame;
  bool is_syscall = sregs->cr2 == lstar_ && Peek(guest, regs->rsp + sizeof(uint64_t), &frame) &&
                    frame.rip == lstar_ && (frame.cs & 3) == 3;
  if (!is_syscall) {
    ++real_faults_;
    CUBE_TRY(SkipFirstInstruction(vcpu));
    return Outcome::kHandled;
  }
  ++repaired_;
  CUBE_ASSIGN(kvm_regs * new_regs, vcpu->mutable_regs());
  CUBE_ASSIGN(kvm_sregs * new_sregs, vcpu->mutable_sregs());
  // SYSCALL (SDM volume 2): CS and SS from STAR[47:32], the stack stays the user's. The frame's
  // flags, not R11, are masked: R11 is the user's to forge by a jump to LSTAR.
  uint16_t selector = static_cast<uint16_t>(star_ >> 32 & 0xfffc);
  new_sregs->cs = LongModeCode(selector, 0);
  new_sregs->ss = LongModeData(static_cast<uint16_t>(selector + 8), 0);
  new_regs->rip = lstar_;
  new_regs->rsp = frame.rsp;
  new_regs->rflags = (frame.rflags & ~flag_mask_ & ~kNeverAfterSyscall) | kFlagReserved;
  return Outcome::kHandled;
}

Result<SyscallRepair::Outcome> SyscallRepair::OnInvalidOpcode(KvmVcpu* vcpu) {
  constexpr uint8_t kInterrupt = 0xcd;
  CUBE_ASSIGN(kvm_regs * regs, vcpu->mutable_regs());
  CUBE_ASSIGN(const kvm_sregs* seen, vcpu->sregs());
  GuestVirtual guest(memory_, *seen, regs->rflags);
  Frame frame;
  uint8_t code[2] = {};
  bool is_interrupt = Peek(guest, regs->rsp, &frame) && (frame.cs & 3) == 3 &&
                      guest.PeekBytes(frame.rip, code) == sizeof code && code[0] == kInterrupt;
  if (!is_interrupt) {
    CUBE_TRY(SkipFirstInstruction(vcpu));
    return Outcome::kHandled;
  }
  // The #UD is undone; the interrupt comes from where the program was.
  CUBE_ASSIGN(kvm_sregs * sregs, vcpu->mutable_sregs());
  regs->rip = frame.rip;
  regs->rsp = frame.rsp;
  regs->rflags = frame.rflags & ~kFlagResume;
  sregs->cs = LongModeCode(static_cast<uint16_t>(frame.cs), 3);
  sregs->ss = LongModeData(static_cast<uint16_t>(frame.ss), 3);
  Exception interrupt = {code[1], std::nullopt, std::nullopt, sizeof code};
  return DeliverException(memory_, interrupt, regs, sregs) ? Outcome::kHandled
                                                           : Outcome::kTripleFault;
}

// Resuming at the handler would hit the breakpoint again: this KVM does not honour RF. What Linux
// begins the handler with is carried out here; anything else by one single step.
Status SyscallRepair::SkipFirstInstruction(KvmVcpu* vcpu) {
  CUBE_ASSIGN(kvm_regs * regs, vcpu->mutable_regs());
  CUBE_ASSIGN(const kvm_sregs* sregs, vcpu->sregs());
  GuestVirtual guest(memory_, *sregs, regs->rflags);
  uint8_t code[4] = {};
  guest.PeekBytes(regs->rip, code);
  if (code[0] == 0x0f && code[1] == 0x01 && code[2] == 0xca) {  // clac
    regs->rflags &= ~kFlagAlignmentCheck;
    regs->rip += 3;
  } else if (code[0] == 0x0f && code[1] == 0x1f && code[2] == 0x00) {  // nopl (%rax)
    regs->rip += 3;
  } else if (code[0] == 0xf3 && code[1] == 0x0f && code[2] == 0x1e && code[3] == 0xfa) {  // endbr64
    regs->rip += 4;
  } else if (code[0] == 0xfc) {  // cld
    regs->rflags &= ~kFlagDirection;
    regs->rip += 1;
  } else if (code[0] == 0x90) {
    regs->rip += 1;
  } else {
    CUBE_TRY(SetBreakpoint(vcpu, true));
  }
  return OkStatus();
}

Result<bool> SyscallRepair::OnStepped(KvmVcpu* vcpu) {
  if (!stepping_) return false;
  CUBE_TRY(SetBreakpoint(vcpu, false));
  return true;
}

}  // namespace cube::vmm
