#ifndef CUBE_VMM_KVM_VCPU_STATE_H_
#define CUBE_VMM_KVM_VCPU_STATE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/state_io.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/kvm/kvm_vcpu.h"

namespace cube::vmm {

// Everything KVM knows of one vCPU, as it is saved. Captured and applied on the thread that the
// vCPU belongs to, while it does not run.
struct VcpuState {
  static constexpr uint32_t kVersion = 1;

  std::vector<kvm_cpuid_entry2> cpuid;
  kvm_regs regs = {};
  kvm_sregs sregs = {};
  kvm_xcrs xcrs = {};
  std::vector<uint8_t> xsave;  // standard format, KVM_GET_XSAVE2
  std::vector<kvm_msr_entry>
      msrs;  // all that KVM lets be read and written, but TSC and its deadline
  kvm_lapic_state lapic = {};
  kvm_vcpu_events events = {};
  kvm_debugregs debugregs = {};
  kvm_mp_state mp_state = {};
  uint64_t tsc = 0;           // the guest's, at the moment of capture
  uint64_t tsc_deadline = 0;  // in the guest's TSC; 0 if no timer is set
  uint64_t tsc_khz = 0;

  // `msr_indices` are KVM's (Kvm::MsrIndices); `cpuid` as the vCPU was given it.
  static Result<VcpuState> Capture(KvmVcpu* vcpu, std::span<const uint32_t> msr_indices,
                                   std::span<const kvm_cpuid_entry2> cpuid);

  // Into a vCPU just made, in the order that KVM needs. The guest's time stands still until
  // StartClock(). Errors: what KVM refuses, or a TSC of another frequency.
  Status Apply(KvmVcpu* vcpu) const;
  // The same into one that has run, with this CPUID, which KVM then no longer lets be set.
  Status ApplyAgain(KvmVcpu* vcpu) const;
  // Lets the guest's TSC go on from where it was captured, `host_tsc` being now, and sets its timer
  // anew. Immediately before the first KVM_RUN: what passes in between the guest takes for time.
  // Where KVM cannot shift the TSC (user mode that runs natively reads the host's), the timer is
  // shifted instead; a guest there must not take its time from the TSC alone.
  Status StartClock(KvmVcpu* vcpu, uint64_t host_tsc) const;

  void Write(StateWriter* writer) const;
  // Trusts nothing: lengths are bounded, and what is too much or too little is an error.
  static Result<VcpuState> Read(StateReader* reader);
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_KVM_VCPU_STATE_H_
