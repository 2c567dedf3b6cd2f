// Ring0Engine after KVM_RUN: what an exit means, and how ring 0 is taken back.
#include <x86intrin.h>

#include "vmm/assist/guest_virtual.h"
#include "vmm/ring0/handler_support.h"
#include "vmm/ring0/ring0_engine.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

constexpr uint64_t kFlagsAfterSyscall = ~(kFlagResume | kFlagVirtual8086);
constexpr uint32_t kMsrTscAdjust = 0x3b;
// #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX (SDM volume 3, table 6-1; AMD APM volume
// 2, 8.2).
constexpr uint32_t kVectorsWithErrorCode = 0x60227d00;

}  // namespace

Result<Ring0Engine::Outcome> Ring0Engine::TakeOver(KvmVcpu* vcpu) {
  if (!locked_) AcquireLock();
  stub_.Unmap();
  CUBE_TRY(Load(vcpu));
  mmu_.Refresh(*cpu_);
  bool halted = mode_ == Mode::kHalt;
  mode_ = Mode::kInterpret;
  if (halted) {
    // The OUT of the stub's gate is one of KVM's, too.
    uint64_t gate = vcpu->run()->exit_reason == KVM_EXIT_IO ? 1 : 0;
    if (emulated_.Read() > expected_emulated_ + gate) CUBE_TRY(Resynchronise(vcpu));
  }
  return Outcome::kRun;
}

Status Ring0Engine::Resynchronise(KvmVcpu* vcpu) {
  ++counters_.resynchronisations;
  std::vector<uint64_t> roots;
  for (const uint64_t* root : shared_->roots) roots.push_back(*root);
  shared_->tables.Rebuild(roots);
  shared_->code.DropAll();
  mmu_.FlushAll(*cpu_);
  mmu_.Refresh(*cpu_);
  const uint32_t index = kMsrKernelGsBase;
  CUBE_ASSIGN(std::vector<kvm_msr_entry> values, vcpu->GetMsrs({&index, 1}));
  cpu_->kernel_gs_base = kvm_kernel_gs_base_ = values[0].data;
  return OkStatus();
}

Result<Ring0Engine::Outcome> Ring0Engine::AfterRun(KvmVcpu* vcpu) {
  last_run_ = __rdtsc();
  counters_.kvm_ticks += last_run_ - run_started_;
  return OnExit(vcpu);
}

Result<Ring0Engine::Outcome> Ring0Engine::OnExit(KvmVcpu* vcpu) {
  const kvm_run* run = vcpu->run();
  switch (run->exit_reason) {
    case KVM_EXIT_DEBUG: {
      if (mode_ != Mode::kStep) return Outcome::kUnhandled;
      ++counters_.steps;
      CUBE_ASSIGN(Outcome outcome, TakeOver(vcpu));
      CUBE_TRY(OnMsrWritten(vcpu, std::exchange(stepped_msr_, std::nullopt)));
      return outcome;
    }
    case KVM_EXIT_INTERNAL_ERROR: {
      if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) return Outcome::kUnhandled;
      // Where it found no memory it takes the instruction for one to emulate.
      if (shared_->slots != nullptr && !shared_->slots->complete()) {
        ++counters_.late_slots;
        shared_->slots->EnsureAll();
        return Outcome::kRun;
      }
      CUBE_ASSIGN(InstructionAssist::Outcome outcome, assist_.CarryOut(vcpu));
      if (outcome == InstructionAssist::Outcome::kInvalid) return Outcome::kRun;
      if (outcome == InstructionAssist::Outcome::kTripleFault) return Outcome::kTripleFault;
      if (outcome == InstructionAssist::Outcome::kUnknown) return Outcome::kUnhandled;
      return TakeOver(vcpu);
    }
    case KVM_EXIT_MMIO:
      return CompleteAccess(vcpu) ? Outcome::kRun : Outcome::kNotMine;
    case KVM_EXIT_IO: {
      if (run->io.direction != KVM_EXIT_IO_OUT) return Outcome::kNotMine;
      bool asked = run->io.port == KvmStub::kPollPort && mode_ == Mode::kPoll;
      if ((run->io.port == KvmStub::kReplayPort && mode_ == Mode::kReplay) || asked) {
        // The interpreter's state stands; what KVM holds beside its segments is the stub's.
        if (!locked_) AcquireLock();
        stub_.Unmap();
        mmu_.Refresh(*cpu_);
        if (asked && (cpu_->system_flags & kFlagInterrupt) != 0) more_may_wait_ = false;
        mode_ = Mode::kInterpret;
        return Outcome::kRun;
      }
      if (run->io.port != KvmStub::kVectorPort || !stub_.mapped()) return Outcome::kNotMine;
      CUBE_ASSIGN(const kvm_regs* regs, vcpu->regs());
      std::optional<uint8_t> vector = stub_.VectorAt(regs->rip);
      return vector ? OnVector(vcpu, *vector) : Result<Outcome>(Outcome::kNotMine);
    }
    default:
      return Outcome::kNotMine;
  }
}

// What KVM was handed a write of, and what is to be known of it here.
Status Ring0Engine::OnMsrWritten(KvmVcpu* vcpu, std::optional<uint32_t> index) {
  if (index == kMsrTsc || index == kMsrTscAdjust) {
    auto offset = vcpu->TscOffset();
    cpu_->tsc_known = offset.ok();
    if (offset.ok()) cpu_->tsc_offset = *offset;
  }
  if (index == kMsrTscAux) {
    CUBE_ASSIGN(std::vector<kvm_msr_entry> values, vcpu->GetMsrs({&kMsrTscAux, 1}));
    cpu_->tsc_aux = values[0].data;
  }
  return OkStatus();
}

Result<Ring0Engine::Outcome> Ring0Engine::OnVector(KvmVcpu* vcpu, uint8_t vector) {
  Mode mode = mode_;
  Cpu& cpu = *cpu_;
  const uint64_t rip = cpu.rip, rsp = cpu.r[kRsp], flags = cpu.rflags();
  CUBE_TRY(TakeOver(vcpu));
  ++counters_.takeovers;
  bool has_error_code = vector < 32 && (kVectorsWithErrorCode >> vector & 1) != 0;
  std::array<uint64_t, 6> frame;
  for (size_t i = has_error_code ? 0 : 1; i < frame.size(); ++i) {
    uint64_t address = cpu.r[kRsp] + 8 * (i - (has_error_code ? 0 : 1));
    if (!ring0::Load<uint64_t>(cpu, address, &frame[i])) {
      return Errorf("the frame of vector %u at %#llx cannot be read", vector,
                    static_cast<unsigned long long>(address));
    }
  }
  if (mode == Mode::kUser && vector == kVectorPageFault && cpu.cr2 == lstar_ &&
      frame[1] == lstar_ && (frame[2] & 3) == 3) {
    ++counters_.syscalls;
    CompleteSyscall(frame[3], frame[4]);
    return Outcome::kRun;
  }
  ++(vector < 32 ? counters_.faults : counters_.interrupts);
  delivered_ = vector;
  if (vector == kVectorNmi) cpu_->in_nmi = true;
  // Undone, and then delivered to the guest's own handler.
  cpu.rip = mode == Mode::kPoll ? polled_at_ : frame[1];
  more_may_wait_ = mode == Mode::kPoll;
  cpu.cs = static_cast<uint16_t>(frame[2]);
  cpu.set_rflags(mode == Mode::kStep ? frame[3] & ~kFlagTrap : frame[3]);
  cpu.r[kRsp] = frame[4];
  cpu.ss = static_cast<uint16_t>(frame[5]);
  if ((frame[2] & 3) == 0 && stub_.InReplay(frame[1])) {
    // An NMI: the guest sees the return that the replay was for, and both are begun again.
    stub_.UndoReplay(&shared_->tables.replay_queue());
    cpu.rip = rip;
    cpu.r[kRsp] = rsp;
    cpu.set_rflags(flags);
  }
  Exception event = {vector, std::nullopt, std::nullopt};
  // KVM's emulator does not know INT n, and raises #UD for it.
  if (vector == kVectorInvalidOpcode && (cpu.cs & 3) == 3) {
    constexpr uint8_t kInterrupt = 0xcd;
    GuestVirtual guest(shared_->memory, sregs_, 0);
    uint8_t code[2] = {};
    if (guest.PeekBytes(cpu.rip, code) == sizeof code && code[0] == kInterrupt) {
      event.vector = code[1];
      event.software_length = sizeof code;
    }
  }
  if (has_error_code) event.error_code = static_cast<uint32_t>(frame[0]);
  if (vector == kVectorPageFault) {
    event.fault_address = cpu.cr2;
    // Where KVM could not read a table it takes the page for absent.
    if ((cpu.cs & 3) == 3 && shared_->slots != nullptr &&
        shared_->slots->EnsureMapped(cpu.cr3, cpu.cr2)) {
      ++counters_.late_slots;
      return Outcome::kRun;
    }
  }
  return Deliver(event) ? Outcome::kRun : Outcome::kTripleFault;
}

// SYSCALL (SDM volume 2): CS and SS from STAR[47:32], the stack stays the user's. The frame's
// flags, not R11, are masked: R11 is the user's to forge by a jump to LSTAR.
void Ring0Engine::CompleteSyscall(uint64_t user_flags, uint64_t user_stack) {
  Cpu& cpu = *cpu_;
  cpu.cs = static_cast<uint16_t>(star_ >> 32 & 0xfffc);
  cpu.ss = cpu.kernel_ss;
  cpu.rip = lstar_;
  cpu.r[kRsp] = user_stack;
  cpu.set_rflags(user_flags & ~flag_mask_ & kFlagsAfterSyscall);
}

}  // namespace cube::vmm::ring0
