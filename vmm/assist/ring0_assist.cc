#include "vmm/assist/ring0_assist.h"

namespace cube::vmm {

Result<bool> Ring0Assist::HandleExit(KvmVcpu* vcpu) {
  kvm_run* run = vcpu->run();
  switch (run->exit_reason) {
    case KVM_EXIT_INTERNAL_ERROR: {
      if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) return false;
      CUBE_ASSIGN(InstructionAssist::Outcome outcome, instructions_.CarryOut(vcpu));
      return outcome != InstructionAssist::Outcome::kUnknown;
    }
    case KVM_EXIT_DEBUG: {
      CUBE_ASSIGN(bool stepped, syscalls_.OnStepped(vcpu));
      if (stepped) return true;
      return syscalls_.OnDebug(vcpu);
    }
    case KVM_EXIT_X86_WRMSR:
      ++msr_exits_;
      CUBE_TRY(syscalls_.OnWriteMsr(vcpu));
      return true;
    case KVM_EXIT_X86_RDMSR:
      ++msr_exits_;
      CUBE_TRY(syscalls_.OnReadMsr(vcpu));
      return true;
    default:
      return false;
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
