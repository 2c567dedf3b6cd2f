#ifndef CUBE_VMM_ASSIST_HOST_PROBE_H_
#define CUBE_VMM_ASSIST_HOST_PROBE_H_

#include "base/result.h"
#include "vmm/kvm/kvm.h"

namespace cube::vmm {

// How the host's KVM runs guest ring 0, found out by running some (docs/host.md).
struct HostProbe {
  // KVM executes an instruction in ring 0 that its emulator lacks.
  bool runs_every_instruction = false;
  // SYSCALL of user mode arrives in ring 0.
  bool syscall_enters_ring0 = false;
  // One register instruction of ring 0, and one of user mode, in nanoseconds.
  double ring0_nanoseconds = 0;
  double user_nanoseconds = 0;

  // The verdict: hardware runs ring 0 only if all of the above say so.
  bool emulated_ring0() const { return !runs_every_instruction || !syscall_enters_ring0; }
};

// Takes a few milliseconds and leaves nothing behind.
Result<HostProbe> ProbeHost(const Kvm& kvm);

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_HOST_PROBE_H_
