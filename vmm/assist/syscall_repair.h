#ifndef CUBE_VMM_ASSIST_SYSCALL_REPAIR_H_
#define CUBE_VMM_ASSIST_SYSCALL_REPAIR_H_

#include <cstdint>

#include "base/result.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm_vcpu.h"

namespace cube::vmm {

// Completes SYSCALL of guest user mode on a KVM that carries it out by half: RIP, RCX, R11 and the
// flags change, but the privilege level stays 3, so the fetch at LSTAR faults into the guest's own
// #PF handler. A hardware breakpoint on that handler leaves for this class, which tells such a
// fault from a real one and puts the guest where SYSCALL was to take it (docs/host.md). A second
// one on the guest's #UD handler does the same for INT n, which such a KVM takes for an invalid
// instruction.
//
// The breakpoints take debug registers 0 and 1 from the guest. Belongs to one vCPU's thread.
class SyscallRepair {
 public:
  explicit SyscallRepair(const GuestMemory& memory) : memory_(memory) {}

  // The guest has written STAR, LSTAR or FMASK: the value is remembered. A write of LSTAR arms the
  // breakpoints.
  Status OnMsrWritten(KvmVcpu* vcpu, uint32_t index, uint64_t value);

  enum class Outcome {
    kHandled,
    kNotMine,      // the exit is not this class's
    kTripleFault,  // the guest cannot take what its program raised
  };
  // KVM_EXIT_DEBUG at the handler of #PF or #UD: repairs a SYSCALL or an INT n, or carries out the
  // handler's first instruction for an exception that is real.
  Result<Outcome> OnDebug(KvmVcpu* vcpu);
  // KVM_EXIT_DEBUG after the single step that OnDebug() may have asked for. False if it had not.
  Result<bool> OnStepped(KvmVcpu* vcpu);

  uint64_t repaired() const { return repaired_; }
  uint64_t real_faults() const { return real_faults_; }

 private:
  Status Arm(KvmVcpu* vcpu);
  Result<Outcome> OnPageFault(KvmVcpu* vcpu);
  Result<Outcome> OnInvalidOpcode(KvmVcpu* vcpu);
  Status SetBreakpoint(KvmVcpu* vcpu, bool step);
  Status SkipFirstInstruction(KvmVcpu* vcpu);

  const GuestMemory& memory_;
  uint64_t star_ = 0;
  uint64_t lstar_ = 0;
  uint64_t flag_mask_ = 0;
  uint64_t handler_ = 0;          // of #PF
  uint64_t invalid_handler_ = 0;  // of #UD
  bool stepping_ = false;
  uint64_t repaired_ = 0;
  uint64_t real_faults_ = 0;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_SYSCALL_REPAIR_H_
