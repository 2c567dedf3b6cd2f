#ifndef CUBE_VMM_PIT_ON_DEMAND_H_
#define CUBE_VMM_PIT_ON_DEMAND_H_

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "vmm/kvm/kvm_vm.h"
#include "vmm/kvm/vm_state.h"

namespace cube::vmm {

// The interval timer of a restored machine. KVM's costs a thread of the host's kernel in each VM,
// and a guest that has booted has mostly stopped using it: it is made when the guest comes to one
// of its ports, which only an owner who sees those accesses before KVM does can tell (the ring-0
// engine). Used by one thread at a time.
class PitOnDemand {
 public:
  // Whether a VM in this state would not miss its timer: nothing can hear its interrupt, and it
  // does not repeat.
  static bool IsIdle(const VmState& state);

  // Keeps `state` for the time being; the VM has no PIT.
  void Defer(const kvm_pit_state2& state) { deferred_ = state; }
  // Of the deferred timer; empty if KVM has one.
  const std::optional<kvm_pit_state2>& deferred() const { return deferred_; }
  // The guest is about to access `port`: makes the timer in `vm` if it is one of its own.
  Status OnPort(const KvmVm& vm, uint16_t port);
  // Makes it whatever the port.
  Status Make(const KvmVm& vm);

 private:
  std::optional<kvm_pit_state2> deferred_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_PIT_ON_DEMAND_H_
