#include "vmm/assist/ring0_assist.h"

#include "vmm/segments.h"

namespace cube::vmm {

Status Ring0Assist::PrepareVm(const KvmVm& vm) {
  const uint32_t msrs[] = {kMsrStar, kMsrLstar, kMsrSyscallMask, kMsrTscDeadline};
  return vm.FilterMsrs(msrs);
}

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
      CUBE_ASSIGN(SyscallRepair::Outcome outcome, syscalls_.OnDebug(vcpu));
      if (booted_ != nullptr && syscalls_.repaired() != 0) {
        booted_->store(true, std::memory_order_relaxed);
      }
      switch (outcome) {
        case SyscallRepair::Outcome::kHandled:
          return Outcome::kHandled;
        case SyscallRepair::Outcome::kTripleFault:
          return Outcome::kTripleFault;
        case SyscallRepair::Outcome::kNotMine:
          break;
      }
      return Outcome::kNotHandled;
    }
    case KVM_EXIT_X86_WRMSR:
      ++msr_exits_;
      CUBE_TRY(OnWriteMsr(vcpu));
      return Outcome::kHandled;
    case KVM_EXIT_X86_RDMSR:
      ++msr_exits_;
      CUBE_TRY(OnReadMsr(vcpu));
      return Outcome::kHandled;
    default:
      return Outcome::kNotHandled;
  }
}

Status Ring0Assist::OnWriteMsr(KvmVcpu* vcpu) {
  auto& msr = vcpu->run()->msr;
  kvm_msr_entry entry = {};
  entry.index = msr.index;
  entry.data = msr.data;
  if (entry.index == kMsrTscDeadline) {
    CUBE_ASSIGN(entry.data, ticks_.Deadline(vcpu, entry.data));
  }
  if (!vcpu->SetMsrs({&entry, 1}).ok()) {
    msr.error = 1;  // KVM raises #GP
    return OkStatus();
  }
  msr.error = 0;
  return syscalls_.OnMsrWritten(vcpu, entry.index, entry.data);
}

Status Ring0Assist::OnReadMsr(KvmVcpu* vcpu) {
  auto& msr = vcpu->run()->msr;
  const uint32_t index = msr.index;
  auto values = vcpu->GetMsrs({&index, 1});
  msr.error = values.ok() ? 0 : 1;
  if (values.ok()) msr.data = values.value()[0].data;
  return OkStatus();
}

Status Ring0Assist::Adopt(KvmVcpu* vcpu) {
  // LSTAR last: it arms the breakpoint.
  const uint32_t msrs[] = {kMsrStar, kMsrSyscallMask, kMsrLstar};
  CUBE_ASSIGN(std::vector<kvm_msr_entry> values, vcpu->GetMsrs(msrs));
  for (const kvm_msr_entry& entry : values) {
    if (entry.data != 0) CUBE_TRY(syscalls_.OnMsrWritten(vcpu, entry.index, entry.data));
  }
  if (booted_ != nullptr) booted_->store(true, std::memory_order_relaxed);
  return OkStatus();
}

std::map<std::string, uint64_t> Ring0Assist::Counts() const {
  std::map<std::string, uint64_t> counts = instructions_.counts();
  counts["syscall"] = syscalls_.repaired();
  counts["page fault"] = syscalls_.real_faults();
  counts["msr"] = msr_exits_;
  return counts;
}

}  // namespace cube::vmm
