#include "vmm/ring0/reference_vcpu.h"

#include <cstring>
#include <iterator>

#include "vmm/segments.h"

namespace cube::vmm::ring0 {

ReferenceVcpu::ReferenceVcpu(const GuestMemory& memory, KvmVm vm, KvmVcpu vcpu, XsaveLayout layout)
    : vm_(std::move(vm)), vcpu_(std::move(vcpu)), assist_(memory, std::move(layout)) {}

Result<std::unique_ptr<ReferenceVcpu>> ReferenceVcpu::Create(
    const Kvm& kvm, const GuestMemory& memory, std::span<const kvm_cpuid_entry2> cpuid) {
  CUBE_ASSIGN(KvmVm vm, kvm.CreateVm());
  CUBE_TRY(vm.SetTssAndIdentityMap());
  uint32_t slot = 0;
  for (const MemoryRegion& region : memory.regions()) {
    CUBE_TRY(vm.SetMemorySlot(slot++, region.guest_address, region.host));
  }
  CUBE_ASSIGN(KvmVcpu vcpu, vm.CreateVcpu(0));
  CUBE_TRY(vcpu.SetCpuid(cpuid));
  std::unique_ptr<ReferenceVcpu> reference(
      new ReferenceVcpu(memory, std::move(vm), std::move(vcpu), XsaveLayout::FromCpuid(cpuid)));
  reference->vcpu_.SyncRegisters(true);
  kvm_guest_debug debug = {};
  debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  CUBE_TRY(reference->vcpu_.SetGuestDebug(debug));
  CUBE_ASSIGN(const kvm_sregs* sregs, reference->vcpu_.sregs());
  reference->apic_base_ = sregs->apic_base;
  return reference;
}

Status ReferenceVcpu::Load(const CpuState& state, uint64_t kernel_gs_base,
                           const kvm_sregs& segments) {
  CUBE_ASSIGN(kvm_regs * regs, vcpu_.mutable_regs());
  CUBE_ASSIGN(kvm_sregs * sregs, vcpu_.mutable_sregs());
  *sregs = segments;
  sregs->apic_base = apic_base_;
  sregs->cr8 = 0;
  memset(sregs->interrupt_bitmap, 0, sizeof sregs->interrupt_bitmap);
  state.To(regs, sregs);
  CUBE_TRY(vcpu_.FlushRegistersNow());
  const kvm_msr_entry entry = {kMsrKernelGsBase, 0, kernel_gs_base};
  return vcpu_.SetMsrs({&entry, 1});
}

Result<ReferenceVcpu::Outcome> ReferenceVcpu::Step() {
  constexpr int kAttempts = 10;
  for (int i = 0; i < kAttempts; ++i) {
    CUBE_TRY(vcpu_.Run());
    switch (vcpu_.run()->exit_reason) {
      case KVM_EXIT_DEBUG:
        return Outcome::kDone;
      case KVM_EXIT_INTR:
        continue;
      case KVM_EXIT_IO:
      case KVM_EXIT_MMIO:
        return Outcome::kDevice;
      case KVM_EXIT_INTERNAL_ERROR: {
        CUBE_ASSIGN(InstructionAssist::Outcome outcome, assist_.CarryOut(&vcpu_));
        if (outcome == InstructionAssist::Outcome::kDone) return Outcome::kDone;
        if (outcome == InstructionAssist::Outcome::kInvalid) continue;
        return Outcome::kUnknown;
      }
      default:
        return Outcome::kUnknown;
    }
  }
  return Errorf("an instruction of the reference vCPU was interrupted %d times", kAttempts);
}

Result<CpuState> ReferenceVcpu::State() {
  CUBE_ASSIGN(const kvm_regs* regs, vcpu_.regs());
  CUBE_ASSIGN(const kvm_sregs* sregs, vcpu_.sregs());
  return CpuState::Of(*regs, *sregs);
}

Status ReferenceVcpu::SetFlags(uint64_t rflags) {
  CUBE_ASSIGN(kvm_regs * regs, vcpu_.mutable_regs());
  regs->rflags = rflags;
  return OkStatus();
}

Result<uint64_t> ReferenceVcpu::KernelGsBase() {
  const uint32_t index = kMsrKernelGsBase;
  CUBE_ASSIGN(std::vector<kvm_msr_entry> values, vcpu_.GetMsrs({&index, 1}));
  return uint64_t{values[0].data};
}

}  // namespace cube::vmm::ring0
