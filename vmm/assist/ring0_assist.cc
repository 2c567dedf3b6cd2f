#include "vmm/assist/ring0_assist.h"

namespace cube::vmm {

Result<Ring0Assist::Outcome> Ring0Assist::HandleExit(KvmVcpu* vcpu) {
  kvm_run* run = vcpu->run();
  switch (run->exit_reason) {
    case KVM_EXIT_INTERNAL_ERROR: {
      if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) return Outcome::kNotHandled;
      CUBE_ASSIGN(InstructionAssist::Outcome outcome, instructions_.CarryOut(vcpu));
      switch (outcome) {
        case InstructionAssist::Outcome::kDone:
          // That may have been the instruction to step over.
          CUBE_TRY(syscalls_.OnStepped(vcpu));
          return Outcome::kHandled;
        case InstructionAssist::Outcome::kInvalid:
          return Outcome::kHandled;
        case InstructionAssist::Outcome::kTripleFault:
          return Outcome::kTripleFault;
        case InstructionAssist::Outcome::kUnknown:
          break;
      }
      return Outcome::kNotHandled;
    }
    case KVM_EXIT_DEBUG: {
      CUBE_ASSIGN(bool stepped, syscalls_.OnStepped(vcpu));
      if (stepped) return Outcome::kHandled;
      CUBE_ASSIGN(bool handled, syscalls_.OnDebug(vcpu));
      return handled ? Outcome::kHandled : Outcome::kNotHandled;
    }
    case KVM_EXIT_X86_WRMSR:
      ++msr_exits_;
      CUBE_TRY(syscalls_.OnWriteMsr(vcpu));
      return Outcome::kHandled;
    case KVM_EXIT_X86_RDMSR:
      ++msr_exits_;
      CUBE_TRY(syscalls_.OnReadMsr(vcpu));
      return Outcome::kHandled;
    default:
      return Outcome::kNotHandled;
  }
}

std::map<std::string, uint64_t> Ring0Assist::Counts() const {
  std::map<std::string, uint64_t> counts = instructions_.counts();
  counts["syscall"] = syscalls_.repaired();
  counts["page fault"] = syscalls_.real_faults();
  counts["msr"] = msr_exits_;
  return counts;
}

}  // namespace cube::vmm
