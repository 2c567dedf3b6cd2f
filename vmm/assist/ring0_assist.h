#ifndef CUBE_VMM_ASSIST_RING0_ASSIST_H_
#define CUBE_VMM_ASSIST_RING0_ASSIST_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "base/result.h"
#include "vmm/assist/boot_ticks.h"
#include "vmm/assist/instruction_assist.h"
#include "vmm/assist/syscall_repair.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/kvm/kvm_vm.h"

namespace cube::vmm {

// What lets an unmodified kernel run on a KVM that emulates guest ring 0: one object per vCPU,
// used by the vCPU's thread for the exits that only such a KVM makes. A VM on VT-x or SVM has none.
class Ring0Assist {
 public:
  // `booted` is the VM's, false until a vCPU makes the first system call (boot_ticks.h); null for a
  // guest that does not boot.
  Ring0Assist(const GuestMemory& memory, std::span<const kvm_cpuid_entry2> cpuid,
              std::atomic<bool>* booted)
      : instructions_(memory, XsaveLayout::FromCpuid(cpuid)),
        syscalls_(memory),
        ticks_(booted),
        booted_(booted) {}

  // Makes accesses to the MSRs of SYSCALL and of the timer exit. Once per VM, before its vCPUs are
  // made.
  static Status PrepareVm(const KvmVm& vm);

  enum class Outcome {
    kHandled,      // run on
    kNotHandled,   // none of this layer's exits, or one it has no answer to: the VM must stop
    kTripleFault,  // the guest raised an exception that it cannot take
  };
  // Handles the exit that run()->exit_reason names.
  Result<Outcome> HandleExit(KvmVcpu* vcpu);

  // Takes over a vCPU that was restored with everything KVM knows of it: what this layer had learnt
  // of the guest is learnt anew.
  Status Adopt(KvmVcpu* vcpu);

  // Exits handled, by what was done: mnemonics, "syscall", "page fault", "msr".
  std::map<std::string, uint64_t> Counts() const;

  // Words appended to the kernel's command line on such hosts: features whose instructions KVM's
  // emulator lacks or is slow at, hidden where CPUID cannot (docs/host.md gives each its reason).
  static constexpr const char* kKernelArguments =
      "clearcpuid=308,295,297,580,141,151,145,298 rodata=off clocksource=kvm-clock";

 private:
  Status OnWriteMsr(KvmVcpu* vcpu);
  Status OnReadMsr(KvmVcpu* vcpu);

  InstructionAssist instructions_;
  SyscallRepair syscalls_;
  BootTicks ticks_;
  std::atomic<bool>* booted_;
  uint64_t msr_exits_ = 0;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_RING0_ASSIST_H_
