#ifndef CUBE_VMM_ASSIST_BOOT_TICKS_H_
#define CUBE_VMM_ASSIST_BOOT_TICKS_H_

#include <atomic>
#include <cstdint>

#include "base/result.h"
#include "vmm/kvm/kvm_vcpu.h"

namespace cube::vmm {

// Lets a kernel boot instead of counting ticks. Where ring 0 is emulated a tick costs a fifth of the
// time until the next one, and while a kernel boots nobody waits for it. So, until the guest's first
// system call, a timer set to go off within a tick goes off kPause later, as on a host that was busy:
// Linux makes up for the ticks it missed. A longer wait is one the guest sleeps through, and is left
// as it is. The last tick that was put off may still be due in user mode, once. Belongs to one
// vCPU's thread.
class BootTicks {
 public:
  static constexpr uint64_t kTickMs = 10;  // of HZ=100, guestkernel/cube.config
  static constexpr uint64_t kPauseMs = 300;

  // `booted` is the VM's: the vCPU that sees the first system call sets it for all. May be null, for
  // a guest that does not boot.
  explicit BootTicks(const std::atomic<bool>* booted) : booted_(booted) {}

  // The value to give IA32_TSC_DEADLINE when the guest writes `deadline`.
  Result<uint64_t> Deadline(KvmVcpu* vcpu, uint64_t deadline) const;

  static uint64_t Postpone(uint64_t deadline, uint64_t now, uint64_t tsc_khz);

 private:
  const std::atomic<bool>* booted_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_BOOT_TICKS_H_
