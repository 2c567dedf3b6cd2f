#ifndef CUBE_VMM_ASSIST_EXTENDED_STATE_H_
#define CUBE_VMM_ASSIST_EXTENDED_STATE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "vmm/assist/operand_access.h"
#include "vmm/kvm/kvm_vcpu.h"

namespace cube::vmm {

// Where each state component lies in an XSAVE area of the standard format, and how long it is
// (CPUID leaf 0xD; Intel SDM volume 1, 13.2 and 13.4).
struct XsaveLayout {
  struct Component {
    uint32_t offset = 0;
    uint32_t size = 0;
    bool aligned = false;  // starts at a multiple of 64 in the compacted format
  };
  Component components[63];

  static XsaveLayout FromCpuid(std::span<const kvm_cpuid_entry2> entries);
  // Where component `index` (2 to 62) lies in a compacted area whose XCOMP_BV is `compacted`.
  uint32_t CompactedOffset(uint64_t compacted, int index) const;
};

// XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR and XRSTORS of ring 0, carried out on the state that KVM
// holds (SDM volume 1, 13.7 to 13.12). Supervisor components are not offered to guests, so XSAVES
// and XRSTORS are XSAVEC and XRSTOR of the compacted format.
class ExtendedState {
 public:
  explicit ExtendedState(const XsaveLayout& layout) : layout_(layout) {}

  enum class Save { kStandard, kOptimized, kCompacted };
  // Stores the components named by EDX:EAX at `address`. False if `access` holds an exception;
  // an error if KVM fails.
  Result<bool> Store(KvmVcpu* vcpu, OperandAccess* access, uint64_t address, Save format);
  // Loads them. `supervisor` is XRSTORS, which takes the compacted format only.
  Result<bool> Load(KvmVcpu* vcpu, OperandAccess* access, uint64_t address, bool supervisor);

  // LDMXCSR and STMXCSR.
  Result<bool> LoadMxcsr(KvmVcpu* vcpu, OperandAccess* access, const Operand& operand);
  Result<bool> StoreMxcsr(KvmVcpu* vcpu, OperandAccess* access, const Operand& operand);
  // FNINIT, and FNCLEX which only clears the exception flags.
  Status InitX87(KvmVcpu* vcpu);
  Status ClearX87Exceptions(KvmVcpu* vcpu);

 private:
  // Makes `area_` the vCPU's state, and the vCPU's state `area_`.
  Status Fetch(KvmVcpu* vcpu);
  Status Put(KvmVcpu* vcpu);
  Result<uint64_t> Xcr0(KvmVcpu* vcpu);

  XsaveLayout layout_;
  std::vector<uint8_t> area_;
  // KvmVcpu::runs() and ring0_runs(), plus one, when `area_` and `xcr0_` were read; 0 if they are
  // to be read anew.
  uint64_t fetched_at_ = 0;
  uint64_t xcr0_at_ = 0;
  uint64_t xcr0_ = 0;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_EXTENDED_STATE_H_
