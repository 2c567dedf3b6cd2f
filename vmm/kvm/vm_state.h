#ifndef CUBE_VMM_KVM_VM_STATE_H_
#define CUBE_VMM_KVM_VM_STATE_H_

#include <cstdint>

#include <optional>

#include "base/result.h"
#include "base/state_io.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/kvm/kvm_vm.h"

namespace cube::vmm {

// What KVM knows of a VM beside its vCPUs and memory, as it is saved: interrupt controllers, timer,
// clock. Captured while no vCPU runs.
struct VmState {
  static constexpr uint32_t kVersion = 1;

  kvm_irqchip chips[3] = {};  // the two PICs and the I/O APIC, by their chip_id
  kvm_pit_state2 pit = {};
  uint64_t clock = 0;  // kvmclock, nanoseconds

  // `deferred_pit` is the timer's state if `vm` has none yet.
  static Result<VmState> Capture(const KvmVm& vm,
                                 const std::optional<kvm_pit_state2>& deferred_pit);
  // Into a VM whose vCPUs have their state already; all but the clock, and the timer if not `with_pit`.
  Status Apply(const KvmVm& vm, bool with_pit) const;
  // Lets kvmclock go on from where it was captured. Immediately before the first KVM_RUN.
  Status StartClock(const KvmVm& vm) const;

  void Write(StateWriter* writer) const;
  static Result<VmState> Read(StateReader* reader);
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_KVM_VM_STATE_H_
