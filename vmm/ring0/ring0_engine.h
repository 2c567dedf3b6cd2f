#ifndef CUBE_VMM_RING0_RING0_ENGINE_H_
#define CUBE_VMM_RING0_RING0_ENGINE_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "vmm/assist/exception_delivery.h"
#include "vmm/assist/instruction_assist.h"
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/ring0/cpu.h"
#include "vmm/ring0/engine_counters.h"
#include "vmm/ring0/op.h"
#include "vmm/ring0/ring0_shared.h"
#include "vmm/ring0/soft_mmu.h"

namespace cube::vmm::ring0 {

// Runs one vCPU where KVM only emulates guest ring 0: ring 0 in the interpreter, user mode under
// KVM, and single instructions by whoever knows them. It stands around every KVM_RUN:
//
//   BeforeRun() interprets until KVM is needed, and leaves the vCPU so that KVM_RUN does just that;
//   AfterRun() looks at the exit, and takes ring 0 back when it is the engine's turn.
//
// While KVM runs, the vCPU's IDT is that of a stub (kvm_stub.h), through which everything that
// interrupts user mode comes back here and is delivered to the guest's own handlers. Belongs to the
// vCPU's thread, except RequestPoll().
class Ring0Engine {
 public:
  // `vcpu` is its number, below kMaxCpus.
  Ring0Engine(Ring0Shared* shared, uint32_t vcpu, XsaveLayout layout);
  ~Ring0Engine();
  Ring0Engine(const Ring0Engine&) = delete;
  Ring0Engine& operator=(const Ring0Engine&) = delete;

  // What the vCPU's other parts have set must be in `vcpu` by now. Once, on its thread.
  Status Start(KvmVcpu* vcpu, uint8_t physical_bits, bool several_vcpus);

  enum class Outcome {
    kRun,      // BeforeRun: call KVM_RUN. AfterRun: the exit was the engine's
    kStopped,  // BeforeRun: RequestPoll() was called; ask whether to go on
    kNotMine,  // AfterRun: the exit is for others to handle, who then run on
    kTripleFault,
    kUnhandled,  // an exit the engine has no answer to: the VM must stop
  };
  Result<Outcome> BeforeRun(KvmVcpu* vcpu);
  Result<Outcome> AfterRun(KvmVcpu* vcpu);

  // The guest's TSC may have been shifted, and its timer set, since Start(). On the vCPU's thread,
  // before BeforeRun().
  void SynchroniseClock(KvmVcpu* vcpu);

  // The vCPU was restored: KVM must look at its clock before ring 0 does. Before Start().
  void Adopt() { adopted_ = true; }

  // ---- saving and going on (ring0_suspend.cc); after the vCPU was asked to leave KVM_RUN

  // Whether the guest's state is whole, as opposed to half in the stub's hands: then KVM_RUN must
  // be called a little longer.
  Result<bool> Settled(KvmVcpu* vcpu);
  // Leaves vCPU and guest memory as they are without an engine: registers, IDT and root table are
  // the guest's own, and KVM has all of it. Once Settled(). BeforeRun() goes on from there.
  Status Suspend(KvmVcpu* vcpu);

  // The vCPU will not run again; without this, others may wait for it for ever.
  void Leave();

  // Makes BeforeRun() return soon. Any thread.
  void RequestPoll() { cpu_->attention.store(true, std::memory_order_relaxed); }

  // Interpreted instructions, entries, hand-offs by what was handed off.
  std::map<std::string, uint64_t> Counts();

 private:
  // What KVM was last asked to do.
  enum class Mode : uint8_t {
    kInterpret,  // nothing: the interpreter is next
    kStep,       // one instruction of ring 0, or one of a mode before 64-bit
    kUser,       // user mode, or the IRET or SYSRET that leads to it
    kHalt,       // HLT, until an interrupt
    kReplay,     // page-table entries are stored again, nothing else
    kPoll,       // the interpreter goes on where it was, unless an interrupt comes first
  };

  // State between KVM and the interpreter.
  Status Load(KvmVcpu* vcpu);
  Status Save(KvmVcpu* vcpu);
  bool Interpretable() const;
  // Segments and tables as the guest has them.
  kvm_sregs GuestSegments() const;

  Result<Outcome> Interpret(KvmVcpu* vcpu);
  Result<Outcome> OnStop(KvmVcpu* vcpu, Stop stop);
  Status Enter(KvmVcpu* vcpu, Mode mode, uint16_t code);
  Status EnterUser(KvmVcpu* vcpu);
  Status EnterReplay(KvmVcpu* vcpu, const KvmStub::ReplayEnd& end);
  Status EnterPoll(KvmVcpu* vcpu);
  // What KVM has yet to deliver is not what the guest has had.
  Status ForgetDelivered(KvmVcpu* vcpu);
  // True if the vCPU was suspended where KVM must run it, and now is to be.
  Result<bool> EnterSuspended(KvmVcpu* vcpu);
  Result<Outcome> Assist(KvmVcpu* vcpu);
  Result<Outcome> AccessMsr(KvmVcpu* vcpu);
  // False if KVM must be shown the instruction itself.
  bool WriteMsrDirectly(KvmVcpu* vcpu, uint32_t index, uint64_t value);
  // The guest's timer, where an observer holds it back: armed in KVM once it is to go off.
  void HoldTimer(uint64_t deadline);
  Status ReleaseTimer(KvmVcpu* vcpu, bool halts);
  void OnApicWritten(uint32_t index, uint64_t value);
  // False if the guest cannot take it: a triple fault.
  bool Deliver(const Exception& exception);
  // Of the guest's code; none if there is no memory.
  std::optional<uint8_t> CodeByte(uint64_t rip);
  Status OnMsrWritten(KvmVcpu* vcpu, std::optional<uint32_t> index);
  bool InterruptMayWait() const;
  uint8_t NmiStack();
  bool HasSpunForLong();

  // Exits.
  Result<Outcome> OnExit(KvmVcpu* vcpu);
  Result<Outcome> TakeOver(KvmVcpu* vcpu);
  // A gate of the stub's IDT was taken.
  Result<Outcome> OnVector(KvmVcpu* vcpu, uint8_t vector);
  // KVM has run more of ring 0 than it was asked to, past a HLT that no interrupt ended: what was
  // known of the guest's tables and code may be old.
  Status Resynchronise(KvmVcpu* vcpu);
  // KVM is about to do what `mode` says: has it given the RAM that it will come to.
  Status EnsureSlots(Mode mode);
  // An access of KVM's to RAM that it has not got: made for it, and not again.
  bool CompleteAccess(KvmVcpu* vcpu);
  // The vCPU is about to halt: its timer fires at once, and the time until then is skipped.
  Status SkipIdleTime(KvmVcpu* vcpu);
  void SetSelectors();
  void CompleteSyscall(uint64_t user_flags, uint64_t user_stack);

  Status SetDebug(KvmVcpu* vcpu, bool step);
  void CountHandOff();
  void AcquireLock();

  Ring0Shared* shared_;
  std::unique_ptr<Cpu> cpu_;
  Op single_[2];
  SoftMmu mmu_;
  uint32_t vcpu_;
  std::atomic<bool>* announced_;  // of Ring0Shared: an interrupt may wait
  KvmStub stub_;
  InstructionAssist assist_;
  Mode mode_ = Mode::kInterpret;
  bool locked_ = false;

  // KVM's segment state and descriptor tables as last seen.
  kvm_sregs sregs_ = {};
  uint16_t shown_idt_limit_ = 0;  // to KVM
  uint64_t shown_idt_base_ = 0;
  uint64_t kvm_kernel_gs_base_ = 0;
  bool stepping_ = false;  // as KVM was last told
  bool several_vcpus_ = false;
  bool halted_ = false;   // suspended in HLT
  bool adopted_ = false;  // restored, and not yet run
  // The gate that the last KVM_RUN ended with.
  std::optional<uint8_t> delivered_;
  // The last interrupt was one that was asked for: others may have waited behind it.
  bool more_may_wait_ = false;
  uint64_t polled_at_ = 0;               // RIP, while KVM is asked
  std::optional<uint32_t> stepped_msr_;  // that the step under way writes

  KvmStatistic emulated_;
  uint64_t expected_emulated_ = 0;  // when a HLT ends

  uint64_t star_ = 0, lstar_ = 0, flag_mask_ = 0;
  uint64_t deadline_ = ~0ull;   // guest TSC of the next timer interrupt
  uint64_t held_deadline_ = 0;  // of which KVM does not know yet; 0: none
  uint64_t held_until_ = 0;     // instruction count
  uint64_t last_run_ = 0;       // host TSC of the last KVM_RUN
  uint64_t poll_interval_ = 0;  // in ticks of the host's TSC
  uint64_t spin_limit_ = 0;     // likewise
  uint64_t spins_since_ = 0;    // host TSC; 0 if the guest does not spin

  // What EnsureSlots() last looked at: root, and the pages of the stack and of the code.
  uint64_t ensured_user_root_ = 0;
  uint64_t ensured_root_ = 0, ensured_stack_ = 0, ensured_code_ = 0;

  uint64_t tsc_khz_ = 0;
  uint64_t run_started_ = 0;  // host TSC at the end of BeforeRun()
  EngineCounters counters_;
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_RING0_ENGINE_H_
