#ifndef CUBE_VMM_KVM_KVM_VCPU_H_
#define CUBE_VMM_KVM_KVM_VCPU_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/kvm/kvm_api.h"

namespace cube::vmm {

// One counter of KVM_GET_STATS_FD (4.133), kept open for reading it often.
class KvmStatistic {
 public:
  KvmStatistic() = default;
  KvmStatistic(UniqueFd fd, uint64_t offset) : fd_(std::move(fd)), offset_(offset) {}

  bool valid() const { return fd_.valid(); }
  // 0 if it cannot be read.
  uint64_t Read() const;

 private:
  UniqueFd fd_;
  uint64_t offset_ = 0;
};

// One vCPU (KVM API section 4, "vcpu ioctl"). All calls belong to the thread that runs it, except
// RequestExit().
//
// regs() and sregs() are read from KVM at most once per exit and written back before the next
// Run(), and only if mutable_regs() or mutable_sregs() was asked for. With SyncRegisters(true) they
// travel in the shared run area (KVM API 6.59, KVM_CAP_SYNC_REGS) rather than by ioctl, which pays where
// most exits need them: on a host that emulates ring 0.
class KvmVcpu {
 public:
  KvmVcpu(uint32_t id, UniqueFd fd, Mapping run, size_t xsave_size, uint64_t sync_supported);

  uint32_t id() const { return id_; }
  kvm_run* run() const { return reinterpret_cast<kvm_run*>(run_.data()); }

  void SyncRegisters(bool on);

  // KVM_RUN (4.10). EINTR and EAGAIN are not errors: run()->exit_reason is then KVM_EXIT_INTR.
  Status Run();
  // Runs so far, and those in which the guest's ring 0 may have run: what was read of the vCPU is as
  // it was while the one, and control registers while the other, stands.
  uint64_t runs() const { return runs_; }
  uint64_t ring0_runs() const { return ring0_runs_; }
  // The next Run() is one of user mode, or of code that is not the guest's.
  void NextRunKeepsControlRegisters() { next_keeps_control_registers_ = true; }
  // Makes the Run() under way or the next one return at once; a thread in it must also get a
  // signal. Any thread.
  void RequestExit() { __atomic_store_n(&run()->immediate_exit, 1, __ATOMIC_SEQ_CST); }
  void ClearExitRequest() { __atomic_store_n(&run()->immediate_exit, 0, __ATOMIC_SEQ_CST); }
  // Has KVM finish the instruction whose exit Run() returned with, and nothing else (KVM API 5,
  // immediate_exit). What is set of a vCPU before that may be changed by it: where the processor runs
  // ring 0, an OUT steps over itself only now, and does so as well at the same RIP of other code.
  Status FinishExit();

  Result<const kvm_regs*> regs();
  Result<const kvm_sregs*> sregs();
  Result<kvm_regs*> mutable_regs();
  // Its interrupt_bitmap is not written back: pending interrupts are set by SetEvents() alone.
  Result<kvm_sregs*> mutable_sregs();
  // Writes back by ioctl what is pending, for calls that must see it before the next Run().
  Status FlushRegistersNow();

  Status SetCpuid(std::span<const kvm_cpuid_entry2> entries);           // 4.20 KVM_SET_CPUID2
  Status SetMsrs(std::span<const kvm_msr_entry> entries);               // 4.19; all or an error
  Result<std::vector<kvm_msr_entry>> GetMsrs(std::span<const uint32_t> indices);  // 4.18
  Result<kvm_vcpu_events> GetEvents();                                  // 4.31
  Status SetEvents(const kvm_vcpu_events& events);                      // 4.32
  Result<kvm_xcrs> GetXcrs();                                           // 4.42
  Status SetXcrs(const kvm_xcrs& xcrs);                                 // 4.43
  // The whole XSAVE area in standard format; its size is fixed per VM (4.42 KVM_GET_XSAVE2).
  size_t xsave_size() const { return xsave_size_; }
  Status GetXsave(std::span<uint8_t> area);
  Status SetXsave(std::span<const uint8_t> area);
  Status SetGuestDebug(const kvm_guest_debug& debug);                   // 4.87
  Result<kvm_lapic_state> GetLapic();                                   // 4.57
  Status SetLapic(const kvm_lapic_state& state);                        // 4.58
  Result<kvm_mp_state> GetMpState();                                    // 4.38
  Status SetMpState(const kvm_mp_state& state);                         // 4.39
  Result<kvm_debugregs> GetDebugregs();                                 // 4.33
  Status SetDebugregs(const kvm_debugregs& registers);                  // 4.34
  // What KVM adds to the host's TSC for the guest (vcpu device attribute KVM_VCPU_TSC_OFFSET,
  // Documentation/virt/kvm/devices/vcpu.rst).
  Result<uint64_t> TscOffset() const;
  Status SetTscOffset(uint64_t offset);
  // 4.56 KVM_GET_TSC_KHZ; 0 if KVM does not know.
  uint64_t TscKhz() const;
  // A counter by name; not valid if KVM does not keep it.
  KvmStatistic OpenStatistic(const char* name) const;
  // Its value; 0 if KVM does not keep it.
  uint64_t Statistic(const char* name) const { return OpenStatistic(name).Read(); }

  int fd() const { return fd_.get(); }

 private:
  Status PassRegisters();
  void ForgetQueuedInterrupt();

  uint32_t id_;
  UniqueFd fd_;
  Mapping run_;
  size_t xsave_size_;
  uint64_t sync_supported_;
  bool sync_ = false;
  uint64_t runs_ = 0;
  uint64_t ring0_runs_ = 0;
  bool next_keeps_control_registers_ = false;
  bool have_regs_ = false, have_sregs_ = false;
  bool dirty_regs_ = false, dirty_sregs_ = false;
  kvm_regs regs_ = {};
  kvm_sregs sregs_ = {};
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_KVM_KVM_VCPU_H_
