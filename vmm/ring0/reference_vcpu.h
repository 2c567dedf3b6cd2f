#ifndef CUBE_VMM_RING0_REFERENCE_VCPU_H_
#define CUBE_VMM_RING0_REFERENCE_VCPU_H_

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "vmm/assist/instruction_assist.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm.h"
#include "vmm/ring0/cpu_state.h"

namespace cube::vmm::ring0 {

// A vCPU of a VM of its own that executes one instruction of ring 0 at a time, by KVM's emulator
// or, what that does not know, by the assist layer: what the interpreter is held against. It has no
// interrupt controller, so that nothing comes between. One thread.
class ReferenceVcpu {
 public:
  // Its RAM is `memory`, which must outlive it.
  static Result<std::unique_ptr<ReferenceVcpu>> Create(const Kvm& kvm, const GuestMemory& memory,
                                                       std::span<const kvm_cpuid_entry2> cpuid);

  // Sets all registers; of `segments` what is not in `state`: descriptors and their tables.
  Status Load(const CpuState& state, uint64_t kernel_gs_base, const kvm_sregs& segments);

  enum class Outcome {
    kDone,
    kDevice,   // it reads or writes a device, which only one may
    kUnknown,  // neither KVM nor the assist layer knows it
  };
  // One instruction. Of one that repeats, it may be a part: RIP then stays.
  Result<Outcome> Step();

  Result<CpuState> State();
  Status SetFlags(uint64_t rflags);
  Result<uint64_t> KernelGsBase();

 private:
  ReferenceVcpu(const GuestMemory& memory, KvmVm vm, KvmVcpu vcpu, XsaveLayout layout);

  KvmVm vm_;
  KvmVcpu vcpu_;
  InstructionAssist assist_;
  uint64_t apic_base_ = 0;
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_REFERENCE_VCPU_H_
