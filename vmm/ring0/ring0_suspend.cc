// Ring0Engine between two stretches of running: what is its own is taken out of vCPU and memory, so
// that both can be saved, and the guest goes on from there, here or in a clone.
#include <cstring>
#include <utility>

#include "vmm/ring0/ring0_engine.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {

Result<bool> Ring0Engine::Settled(KvmVcpu* vcpu) {
  switch (mode_) {
    case Mode::kInterpret:
      return true;
    case Mode::kStep:
    case Mode::kReplay:
    case Mode::kPoll:
      return false;
    case Mode::kUser:
    case Mode::kHalt:
      break;
  }
  CUBE_ASSIGN(const kvm_regs* regs, vcpu->regs());
  if (stub_.Contains(regs->rip)) return false;
  CUBE_ASSIGN(kvm_vcpu_events events, vcpu->GetEvents());
  // What KVM is about to deliver would go through the stub's gates, which are then gone.
  return events.exception.injected == 0 && events.exception.pending == 0 &&
         events.interrupt.injected == 0 && events.nmi.injected == 0;
}

namespace {

constexpr size_t kLapicInService = 0x100;  // 32 vectors every 16 bytes
constexpr size_t kLapicStride = 16;

bool IsInService(const kvm_lapic_state& lapic, unsigned vector) {
  uint32_t vectors = 0;
  memcpy(&vectors, lapic.regs + kLapicInService + vector / 32 * kLapicStride, sizeof vectors);
  return (vectors >> vector % 32 & 1) != 0;
}

}  // namespace

// KVM may take an interrupt for one that it has to deliver yet which the guest has had: it came
// through the stub, and KVM has not run any code of the guest's since then. Whoever goes on from
// that state would have it again, whatever its interrupt flag says, while its handler holds locks.
// One that the guest has ended as well may be older than the last run.
Status Ring0Engine::ForgetDelivered(KvmVcpu* vcpu) {
  CUBE_ASSIGN(kvm_vcpu_events events, vcpu->GetEvents());
  if (events.interrupt.injected == 0 || events.interrupt.soft != 0) return OkStatus();
  if (delivered_ != events.interrupt.nr) {
    CUBE_ASSIGN(kvm_lapic_state lapic, vcpu->GetLapic());
    if (IsInService(lapic, events.interrupt.nr)) return OkStatus();
  }
  events.interrupt.injected = 0;
  return vcpu->SetEvents(events);
}

Status Ring0Engine::Suspend(KvmVcpu* vcpu) {
  CUBE_ASSIGN(kvm_mp_state mp_state, vcpu->GetMpState());
  if (mode_ == Mode::kInterpret) {
    if (!locked_) AcquireLock();
    CUBE_TRY(ForgetDelivered(vcpu));
  } else {
    CUBE_ASSIGN(Outcome taken, TakeOver(vcpu));
    (void)taken;
  }
  halted_ = mp_state.mp_state == KVM_MP_STATE_HALTED;
  CUBE_TRY(Save(vcpu));
  CUBE_TRY(SetDebug(vcpu, false));
  if (cpu_->kernel_gs_base != kvm_kernel_gs_base_) {
    const kvm_msr_entry entry = {kMsrKernelGsBase, 0, cpu_->kernel_gs_base};
    CUBE_TRY(vcpu->SetMsrs({&entry, 1}));
    kvm_kernel_gs_base_ = cpu_->kernel_gs_base;
  }
  CUBE_TRY(vcpu->FlushRegistersNow());
  Leave();
  return OkStatus();
}

// A vCPU that was suspended, or restored, outside of ring 0: KVM's turn comes first.
Result<bool> Ring0Engine::EnterSuspended(KvmVcpu* vcpu) {
  auto code = static_cast<uint16_t>(star_ >> 32 & 0xfffc);
  bool adopted = std::exchange(adopted_, false);
  if (halted_) {
    halted_ = false;
    CUBE_TRY(Enter(vcpu, Mode::kHalt, cpu_->cs));
    expected_emulated_ = emulated_.Read();  // HLT is over already
    return true;
  }
  bool user = (cpu_->efer & kEferLongModeActive) != 0 && (cpu_->cs & 3) == 3;
  if (!user && adopted && Interpretable()) {
    // kvmclock's page is written as KVM enters the guest; until then it is the one of the snapshot.
    CUBE_TRY(EnterPoll(vcpu));
    return true;
  }
  if (!user) return false;
  ++counters_.user_entries;
  CUBE_TRY(Enter(vcpu, Mode::kUser, code));
  return true;
}

}  // namespace cube::vmm::ring0
