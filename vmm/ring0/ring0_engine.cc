#include "vmm/ring0/ring0_engine.h"

#include <x86intrin.h>

#include <cstring>
#include <utility>

#include "vmm/assist/guest_virtual.h"
#include "vmm/ring0/handler_support.h"
#include "vmm/ring0/interpreter.h"
#include "vmm/ring0/x2apic.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

// Jumps between two looks at the world: some tens of microseconds.
constexpr int32_t kBudget = 2048;
constexpr int32_t kPauseCost = 256;
// What any other stop takes off the budget: a guest may do nothing but raise exceptions.
constexpr int32_t kStopCost = 64;
// Entries that wait to be stored again: more are not kept until user mode, which may never come.
constexpr size_t kMostReplays = 16384;
// How long an interrupt that nothing announced may wait for KVM to be asked.
constexpr uint64_t kPollMicroseconds = 1000;
// How long a vCPU spins before it offers its processor to the others.
constexpr uint64_t kSpinMicroseconds = 60;
constexpr uint64_t kMsrLength = 2;

}  // namespace

Ring0Engine::Ring0Engine(Ring0Shared* shared, uint32_t vcpu, XsaveLayout layout)
    : shared_(shared),
      cpu_(std::make_unique<Cpu>()),
      mmu_(shared->memory, shared->mmio, &shared->flags, &shared->tables, &shared->code),
      vcpu_(vcpu),
      announced_(&shared->interrupts[vcpu]),
      stub_(vcpu, shared->stubs.Of(vcpu)),
      assist_(shared->memory, std::move(layout)) {
  cpu_->single = single_;
  cpu_->mmu = &mmu_;
  cpu_->code = &shared->code;
  cpu_->code_base = shared->code.base();
  cpu_->ports = shared->ports;
  mmu_.FlushAll(*cpu_);
}

Ring0Engine::~Ring0Engine() { Leave(); }

void Ring0Engine::AcquireLock() {
  uint64_t started = __rdtsc();
  shared_->Acquire();
  counters_.lock_ticks += __rdtsc() - started;
  locked_ = true;
}

void Ring0Engine::Leave() {
  if (!locked_) return;
  locked_ = false;
  shared_->Release();
}

Status Ring0Engine::Start(KvmVcpu* vcpu, uint8_t physical_bits, bool several_vcpus) {
  cpu_->physical_bits = physical_bits;
  several_vcpus_ = several_vcpus;
  cpu_->pause_cost = several_vcpus ? kPauseCost : 0;
  tsc_khz_ = vcpu->TscKhz();
  uint64_t khz = tsc_khz_ == 0 ? 2000000 : tsc_khz_;
  poll_interval_ = khz * kPollMicroseconds / 1000;
  spin_limit_ = khz * kSpinMicroseconds / 1000;
  const uint32_t msrs[] = {kMsrKernelGsBase, kMsrTscAux, kMsrStar, kMsrLstar, kMsrSyscallMask};
  CUBE_ASSIGN(std::vector<kvm_msr_entry> values, vcpu->GetMsrs(msrs));
  cpu_->kernel_gs_base = kvm_kernel_gs_base_ = values[0].data;
  cpu_->tsc_aux = values[1].data;
  star_ = values[2].data;
  SetSelectors();
  lstar_ = values[3].data;
  flag_mask_ = values[4].data;
  // Of a vCPU that was restored, what follows is not as at a reset.
  CUBE_ASSIGN(kvm_mp_state mp_state, vcpu->GetMpState());
  halted_ = mp_state.mp_state == KVM_MP_STATE_HALTED;
  CUBE_ASSIGN(kvm_vcpu_events events, vcpu->GetEvents());
  cpu_->in_nmi = events.nmi.masked != 0;
  SynchroniseClock(vcpu);
  emulated_ = vcpu->OpenStatistic("insn_emulation");
  AcquireLock();  // all vCPUs start at once
  shared_->roots.push_back(&cpu_->cr3);
  CUBE_ASSIGN(const kvm_sregs* sregs, vcpu->sregs());
  cpu_->idt_limit = shown_idt_limit_ = sregs->idt.limit;
  cpu_->idt_base = shown_idt_base_ = sregs->idt.base;
  CUBE_TRY(Load(vcpu));
  Leave();
  return OkStatus();
}

void Ring0Engine::SynchroniseClock(KvmVcpu* vcpu) {
  auto offset = vcpu->TscOffset();
  cpu_->tsc_known = offset.ok();
  if (offset.ok()) cpu_->tsc_offset = *offset;
  auto deadline = vcpu->GetMsrs({&kMsrTscDeadline, 1});
  bool set = deadline.ok() && (*deadline)[0].data != 0;
  deadline_ = set ? (*deadline)[0].data : ~0ull;
  last_run_ = __rdtsc();
}

Status Ring0Engine::Load(KvmVcpu* vcpu) {
  CUBE_ASSIGN(const kvm_regs* regs, vcpu->regs());
  CUBE_ASSIGN(const kvm_sregs* sregs, vcpu->sregs());
  Cpu& cpu = *cpu_;
  const uint64_t general[] = {regs->rax, regs->rcx, regs->rdx, regs->rbx, regs->rsp, regs->rbp,
                              regs->rsi, regs->rdi, regs->r8,  regs->r9,  regs->r10, regs->r11,
                              regs->r12, regs->r13, regs->r14, regs->r15};
  memcpy(cpu.r, general, sizeof general);
  cpu.rip = regs->rip;
  cpu.set_rflags(regs->rflags & ~(kFlagResume | kFlagTrap));
  cpu.segment_base[kFsSegment] = sregs->fs.base;
  cpu.segment_base[kGsSegment] = sregs->gs.base;
  cpu.es = sregs->es.selector;
  cpu.cs = sregs->cs.selector;
  cpu.ss = sregs->ss.selector;
  cpu.ds = sregs->ds.selector;
  cpu.fs = sregs->fs.selector;
  cpu.gs = sregs->gs.selector;
  cpu.cr2 = sregs->cr2;
  // What KVM changed of the paging mode or tables, by an instruction it was handed.
  if (cpu.cr0 != sregs->cr0 || cpu.cr4 != sregs->cr4 || cpu.efer != sregs->efer ||
      cpu.cr3 != sregs->cr3) {
    uint64_t old = cpu.cr3;
    cpu.cr0 = sregs->cr0;
    cpu.cr4 = sregs->cr4;
    cpu.efer = sregs->efer;
    cpu.cr3 = sregs->cr3;
    if ((cpu.cr0 & kCr0Paging) != 0) shared_->tables.SwitchRoot(old, cpu.cr3);
    mmu_.FlushAll(cpu);
  }
  // LIDT is one of KVM's.
  if (sregs->idt.base != shown_idt_base_ || sregs->idt.limit != shown_idt_limit_) {
    cpu.idt_base = shown_idt_base_ = sregs->idt.base;
    cpu.idt_limit = shown_idt_limit_ = sregs->idt.limit;
  }
  sregs_ = *sregs;
  return OkStatus();
}

Status Ring0Engine::Save(KvmVcpu* vcpu) {
  const Cpu& cpu = *cpu_;
  CUBE_ASSIGN(kvm_regs * regs, vcpu->mutable_regs());
  uint64_t* general[] = {
      reinterpret_cast<uint64_t*>(&regs->rax), reinterpret_cast<uint64_t*>(&regs->rcx),
      reinterpret_cast<uint64_t*>(&regs->rdx), reinterpret_cast<uint64_t*>(&regs->rbx),
      reinterpret_cast<uint64_t*>(&regs->rsp), reinterpret_cast<uint64_t*>(&regs->rbp),
      reinterpret_cast<uint64_t*>(&regs->rsi), reinterpret_cast<uint64_t*>(&regs->rdi),
      reinterpret_cast<uint64_t*>(&regs->r8),  reinterpret_cast<uint64_t*>(&regs->r9),
      reinterpret_cast<uint64_t*>(&regs->r10), reinterpret_cast<uint64_t*>(&regs->r11),
      reinterpret_cast<uint64_t*>(&regs->r12), reinterpret_cast<uint64_t*>(&regs->r13),
      reinterpret_cast<uint64_t*>(&regs->r14), reinterpret_cast<uint64_t*>(&regs->r15)};
  for (size_t i = 0; i < 16; ++i) *general[i] = cpu.r[i];
  regs->rip = cpu.rip;
  regs->rflags = cpu.rflags();
  kvm_sregs wanted = sregs_;
  wanted.fs.base = cpu.segment_base[kFsSegment];
  wanted.gs.base = cpu.segment_base[kGsSegment];
  wanted.cr2 = cpu.cr2;
  wanted.cr3 = cpu.cr3;
  wanted.cr4 = cpu.cr4;
  if (wanted.cs.selector != cpu.cs) wanted.cs = LongModeCode(cpu.cs, cpu.cs & 3);
  if (wanted.ss.selector != cpu.ss) wanted.ss = LongModeData(cpu.ss, cpu.cs & 3);
  // In 64-bit mode the rest of these means nothing.
  wanted.ds.selector = cpu.ds;
  wanted.es.selector = cpu.es;
  wanted.fs.selector = cpu.fs;
  wanted.gs.selector = cpu.gs;
  shown_idt_base_ = stub_.mapped() ? stub_.idt_base() : cpu.idt_base;
  shown_idt_limit_ = stub_.mapped() ? KvmStub::kIdtLimit : cpu.idt_limit;
  wanted.idt.base = shown_idt_base_;
  wanted.idt.limit = shown_idt_limit_;
  if (memcmp(&wanted, &sregs_, sizeof wanted) != 0) {
    CUBE_ASSIGN(kvm_sregs * sregs, vcpu->mutable_sregs());
    *sregs = wanted;
    sregs_ = wanted;
  }
  return OkStatus();
}

bool Ring0Engine::Interpretable() const {
  return (cpu_->efer & kEferLongModeActive) != 0 && sregs_.cs.l != 0 && (cpu_->cs & 3) == 0 &&
         (cpu_->cr4 & kCr4La57) == 0;
}

void Ring0Engine::SetSelectors() {
  cpu_->kernel_ss = static_cast<uint16_t>((star_ >> 32 & 0xfffc) + 8);
  cpu_->user_cs = static_cast<uint16_t>((star_ >> 48) + 16) | 3;
  cpu_->user_ss = static_cast<uint16_t>((star_ >> 48) + 8) | 3;
}

Status Ring0Engine::SetDebug(KvmVcpu* vcpu, bool step) {
  if (step == stepping_) return OkStatus();
  kvm_guest_debug debug = {};
  if (step) debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  CUBE_TRY(vcpu->SetGuestDebug(debug));
  stepping_ = step;
  return OkStatus();
}

// Of the guest's gate for NMIs: the entry of the interrupt stack table, or 0.
uint8_t Ring0Engine::NmiStack() {
  constexpr uint64_t kGate = kVectorNmi * 16;
  uint64_t gate = 0;
  if (cpu_->idt_limit < kGate + 15 ||
      !ring0::Load<uint64_t>(*cpu_, cpu_->idt_base + kGate, &gate)) {
    return 0;
  }
  return gate >> 32 & 7;
}

// Leaves the vCPU so that KVM_RUN does what `mode` says. `code` is the selector of ring 0.
Status Ring0Engine::Enter(KvmVcpu* vcpu, Mode mode, uint16_t code) {
  if ((cpu_->efer & kEferLongModeActive) != 0 && !stub_.Map(shared_->memory, cpu_->cr3, code)) {
    return Errorf("CR3 %#llx is not memory", static_cast<unsigned long long>(cpu_->cr3));
  }
  stub_.SetNmiStack(NmiStack());
  CUBE_TRY(EnsureSlots(mode));
  CUBE_TRY(Save(vcpu));
  CUBE_TRY(SetDebug(vcpu, mode == Mode::kStep));
  // Only code of the guest's can ask for it.
  bool runs_guest = mode == Mode::kUser || mode == Mode::kHalt;
  if (runs_guest && cpu_->kernel_gs_base != kvm_kernel_gs_base_) {
    const kvm_msr_entry entry = {kMsrKernelGsBase, 0, cpu_->kernel_gs_base};
    CUBE_TRY(vcpu->SetMsrs({&entry, 1}));
    kvm_kernel_gs_base_ = cpu_->kernel_gs_base;
  }
  mode_ = mode;
  if (mode == Mode::kUser || mode == Mode::kHalt) {
    // On the way there KVM injects whatever waits.
    announced_->store(false, std::memory_order_relaxed);
    more_may_wait_ = false;
  }
  if (mode == Mode::kHalt) {
    constexpr uint8_t kSti = 0xfb;
    expected_emulated_ = emulated_.Read() + (CodeByte(cpu_->rip) == kSti ? 2 : 1);
  }
  if (mode != Mode::kReplay) Leave();
  if (mode == Mode::kUser && several_vcpus_) shared_->GiveWay();
  return OkStatus();
}

// A return to user mode: with its segments set from here if that is all there is to it, else by
// KVM, which carries out the guest's own instruction. Entries that KVM must store again come first.
// With one vCPU the code that does so goes on to the return; with several, all must know that it is
// done before another enters user mode, so the lock is kept until it has come back.
Status Ring0Engine::EnterUser(KvmVcpu* vcpu) {
  // KVM takes an NMI to last until an IRET that it sees.
  std::optional<UserReturn> to = cpu_->in_nmi ? std::nullopt : cpu_->user_return;
  if (shared_->tables.replay_queue().empty()) {
    ++counters_.user_entries;
    cpu_->in_nmi = false;
    uint16_t code = cpu_->cs;
    if (to) {
      cpu_->rip = to->rip;
      cpu_->r[kRsp] = to->rsp;
      cpu_->set_rflags(to->rflags);
      cpu_->cs = cpu_->user_cs;
      cpu_->ss = cpu_->user_ss;
    }
    return Enter(vcpu, Mode::kUser, code);
  }
  KvmStub::ReplayEnd end;
  if (!several_vcpus_ && to) {
    end = KvmStub::ReturnFrame{to->rip, cpu_->user_cs, to->rflags, to->rsp, cpu_->user_ss};
  } else if (!several_vcpus_) {
    end = cpu_->rip;
  }
  return EnterReplay(vcpu, end);
}

// Has KVM store queued entries again, as many as the stub holds. After the last it goes to `end`.
Status Ring0Engine::EnterReplay(KvmVcpu* vcpu, const KvmStub::ReplayEnd& end) {
  ++counters_.replays;
  stub_.PrepareReplay(&shared_->tables.replay_queue(), end);
  bool goes_on = end.index() != 0 && shared_->tables.replay_queue().empty();
  if (goes_on) {
    ++counters_.user_entries;
    cpu_->in_nmi = false;
  }
  CUBE_TRY(Enter(vcpu, goes_on ? Mode::kUser : Mode::kReplay, cpu_->cs));
  CUBE_ASSIGN(kvm_regs * regs, vcpu->mutable_regs());
  regs->rip = stub_.replay_entry();
  if (goes_on && std::holds_alternative<KvmStub::ReturnFrame>(end)) {
    regs->rsp = stub_.replay_frame();
  }
  // No interrupt may show the guest the stub as its own code; the return sets the flag anew.
  regs->rflags &= ~kFlagInterrupt;
  return OkStatus();
}

// Whether the guest has done nothing but PAUSE for longer than another vCPU, running, takes to
// answer an interrupt.
bool Ring0Engine::HasSpunForLong() {
  bool paused = std::exchange(cpu_->paused, false);
  uint64_t now = __rdtsc();
  if (!paused || spins_since_ == 0) {
    spins_since_ = paused ? now : 0;
    return false;
  }
  if (now - spins_since_ < spin_limit_) return false;
  spins_since_ = 0;
  return true;
}

// KVM injects what is pending, which then comes through the stub, or leaves at once.
Status Ring0Engine::EnterPoll(KvmVcpu* vcpu) {
  if ((cpu_->system_flags & kFlagInterrupt) != 0) {
    announced_->store(false, std::memory_order_relaxed);
    if (__rdtsc() + cpu_->tsc_offset >= deadline_) deadline_ = ~0ull;
  }
  polled_at_ = cpu_->rip;
  CUBE_TRY(Enter(vcpu, Mode::kPoll, cpu_->cs));
  CUBE_ASSIGN(kvm_regs * regs, vcpu->mutable_regs());
  regs->rip = stub_.poll_entry();
  return OkStatus();
}

bool Ring0Engine::InterruptMayWait() const {
  bool wanted = (cpu_->system_flags & kFlagInterrupt) != 0;
  if (wanted && announced_->load(std::memory_order_acquire)) return true;
  uint64_t now = __rdtsc();
  // An NMI is not announced, and does not ask for the flag.
  return (wanted && now + cpu_->tsc_offset >= deadline_) || now - last_run_ > poll_interval_;
}

Result<Ring0Engine::Outcome> Ring0Engine::BeforeRun(KvmVcpu* vcpu) {
  Result<Outcome> outcome = Outcome::kRun;
  if (mode_ == Mode::kInterpret) outcome = Interpret(vcpu);
  if (outcome.ok() && *outcome == Outcome::kRun) delivered_.reset();
  if (mode_ == Mode::kUser || mode_ == Mode::kReplay || mode_ == Mode::kPoll) {
    vcpu->NextRunKeepsControlRegisters();
  }
  run_started_ = __rdtsc();
  return outcome;
}

Result<Ring0Engine::Outcome> Ring0Engine::Interpret(KvmVcpu* vcpu) {
  if (!locked_) {
    AcquireLock();
    mmu_.Refresh(*cpu_);
  }
  CUBE_ASSIGN(bool entered, EnterSuspended(vcpu));
  if (entered) return Outcome::kRun;
  cpu_->budget = kBudget;
  while (true) {
    if (!Interpretable()) {
      CUBE_TRY(Enter(vcpu, Mode::kStep, cpu_->cs));
      return Outcome::kRun;
    }
    if (shared_->tables.replay_queue().size() > kMostReplays) {
      CUBE_TRY(EnterReplay(vcpu, {}));
      return Outcome::kRun;
    }
    uint64_t started = __rdtsc();
    Stop stop = Stop::kPoll;
    if (cpu_->budget > 0) {
      stop = shared_->observer == nullptr
                 ? ring0::Interpret(*cpu_)
                 : shared_->observer->Interpret(*cpu_, GuestSegments());
    }
    counters_.interpreter_ticks += __rdtsc() - started;
    CUBE_ASSIGN(Outcome outcome, OnStop(vcpu, stop));
    // kNotMine: nothing for KVM, the interpreter goes on.
    if (outcome != Outcome::kNotMine) return outcome;
    // An observer steps KVM from an exception to its handler, with nothing in between.
    bool renew = stop == Stop::kPoll || shared_->observer != nullptr;
    cpu_->budget = renew ? kBudget : cpu_->budget - kStopCost;
  }
}

Result<Ring0Engine::Outcome> Ring0Engine::OnStop(KvmVcpu* vcpu, Stop stop) {
  switch (stop) {
    case Stop::kPoll:
      ++counters_.polls;
      if (cpu_->attention.exchange(false, std::memory_order_relaxed)) {
        Leave();
        return Outcome::kStopped;
      }
      CUBE_TRY(ReleaseTimer(vcpu, false));
      if (InterruptMayWait()) {
        ++counters_.injections;
        CUBE_TRY(EnterPoll(vcpu));
        return Outcome::kRun;
      }
      shared_->Yield(HasSpunForLong());
      mmu_.Refresh(*cpu_);
      return Outcome::kNotMine;
    case Stop::kException: {
      ++counters_.exceptions;
      const PendingException& pending = cpu_->exception;
      Exception exception = {pending.vector, std::nullopt, std::nullopt};
      if (pending.has_error_code) exception.error_code = pending.error_code;
      if (pending.vector == kVectorPageFault) exception.fault_address = pending.address;
      return Deliver(exception) ? Outcome::kNotMine : Outcome::kTripleFault;
    }
    case Stop::kAssist:
      return Assist(vcpu);
    case Stop::kMsr:
      return AccessMsr(vcpu);
    case Stop::kUserReturn:
      CUBE_TRY(EnterUser(vcpu));
      return Outcome::kRun;
    case Stop::kHalt:
      CUBE_TRY(ReleaseTimer(vcpu, true));
      if (shared_->skips_idle_time()) CUBE_TRY(SkipIdleTime(vcpu));
      CUBE_TRY(Enter(vcpu, Mode::kHalt, cpu_->cs));
      return Outcome::kRun;
    case Stop::kPort:
      if (shared_->foreign_port) CUBE_TRY(shared_->foreign_port(cpu_->port));
      [[fallthrough]];
    case Stop::kHandOff:
      CountHandOff();
      CUBE_TRY(Enter(vcpu, Mode::kStep, cpu_->cs));
      return Outcome::kRun;
    case Stop::kNone:
      break;
  }
  return Errorf("the ring-0 interpreter stopped at %#llx without a reason",
                static_cast<unsigned long long>(cpu_->rip));
}

Status Ring0Engine::SkipIdleTime(KvmVcpu* vcpu) {
  // A timer without end, or none: something else will wake the vCPU.
  constexpr uint64_t kMostSeconds = 3600;
  uint64_t now = __rdtsc() + cpu_->tsc_offset;
  if (!cpu_->tsc_known || tsc_khz_ == 0 || deadline_ <= now ||
      deadline_ - now > kMostSeconds * 1000 * tsc_khz_) {
    return OkStatus();
  }
  CUBE_TRY(shared_->AdvanceClock((deadline_ - now) * 1000 / tsc_khz_ * 1000));
  // A moment that has passed: KVM's timer fires as it is set.
  const kvm_msr_entry entry = {kMsrTscDeadline, 0, 1};
  CUBE_TRY(vcpu->SetMsrs({&entry, 1}));
  deadline_ = 1;
  return OkStatus();
}

kvm_sregs Ring0Engine::GuestSegments() const {
  kvm_sregs sregs = sregs_;
  sregs.cr3 = cpu_->cr3;
  sregs.cr4 = cpu_->cr4;
  sregs.idt.base = cpu_->idt_base;
  sregs.idt.limit = cpu_->idt_limit;
  sregs.cs.selector = cpu_->cs;
  sregs.cs.dpl = cpu_->cs & 3;
  sregs.ss.selector = cpu_->ss;
  return sregs;
}

// The exception or interrupt is delivered with the registers of the interpreter.
bool Ring0Engine::Deliver(const Exception& exception) {
  Cpu& cpu = *cpu_;
  kvm_regs regs = {};
  regs.rip = cpu.rip;
  regs.rsp = cpu.r[kRsp];
  regs.rflags = cpu.rflags();
  kvm_sregs sregs = GuestSegments();
  if (!DeliverException(shared_->memory, exception, &regs, &sregs)) return false;
  cpu.rip = regs.rip;
  cpu.r[kRsp] = regs.rsp;
  cpu.set_rflags(regs.rflags);
  cpu.cs = sregs.cs.selector;
  cpu.ss = sregs.ss.selector;
  cpu.cr2 = sregs.cr2;
  return true;
}

Result<Ring0Engine::Outcome> Ring0Engine::Assist(KvmVcpu* vcpu) {
  ++counters_.assists;
  CUBE_TRY(Save(vcpu));
  CUBE_ASSIGN(InstructionAssist::Outcome outcome, assist_.CarryOut(vcpu));
  switch (outcome) {
    case InstructionAssist::Outcome::kDone:
      CUBE_TRY(Load(vcpu));
      return Outcome::kNotMine;
    case InstructionAssist::Outcome::kTripleFault:
      return Outcome::kTripleFault;
    default:
      CountHandOff();
      CUBE_TRY(Enter(vcpu, Mode::kStep, cpu_->cs));
      return Outcome::kRun;
  }
}

std::optional<uint8_t> Ring0Engine::CodeByte(uint64_t rip) {
  SoftMmu::Page page;
  if (!mmu_.Translate(*cpu_, rip, SoftMmu::Access::kFetch, &page) || page.host == nullptr) {
    return std::nullopt;
  }
  return *page.host;
}

Result<Ring0Engine::Outcome> Ring0Engine::AccessMsr(KvmVcpu* vcpu) {
  Cpu& cpu = *cpu_;
  ++counters_.msrs;
  // WRMSR is 0f 30, RDMSR 0f 32.
  bool write = CodeByte(cpu.rip + 1) == 0x30;
  auto index = static_cast<uint32_t>(cpu.r[kRcx]);
  uint64_t value = cpu.r[kRdx] << 32 | static_cast<uint32_t>(cpu.r[kRax]);
  if (write && WriteMsrDirectly(vcpu, index, value)) {
    cpu.rip += kMsrLength;
    return Outcome::kNotMine;
  }
  counters_.CountMsrHandOff(write, index);
  if (write && shared_->slots != nullptr) shared_->slots->EnsureForMsr(index, value);
  if (write) stepped_msr_ = index;
  CUBE_TRY(Enter(vcpu, Mode::kStep, cpu.cs));
  return Outcome::kRun;
}

// By an ioctl, at less than half the price of a single step. What KVM refuses it is shown again,
// for the guest's #GP.
bool Ring0Engine::WriteMsrDirectly(KvmVcpu* vcpu, uint32_t index, uint64_t value) {
  bool apic = index >= kMsrX2ApicFirst && index <= kMsrX2ApicLast;
  bool direct = apic || index == kMsrTscDeadline || index == kMsrStar || index == kMsrLstar ||
                index == kMsrSyscallMask;
  bool held = index == kMsrTscDeadline && shared_->observer != nullptr &&
              shared_->observer->InstructionsPerTick() != 0;
  const kvm_msr_entry entry = {index, 0, held ? 0 : value};
  if (!direct || !vcpu->SetMsrs({&entry, 1}).ok()) return false;
  if (apic) OnApicWritten(index, value);
  switch (index) {
    case kMsrTscDeadline:
      deadline_ = value == 0 || held ? ~0ull : value;
      if (held) HoldTimer(value);
      break;
    case kMsrStar:
      star_ = value;
      SetSelectors();
      break;
    case kMsrLstar:
      lstar_ = value;
      break;
    case kMsrSyscallMask:
      flag_mask_ = value;
      break;
    default:
      break;
  }
  return true;
}

void Ring0Engine::HoldTimer(uint64_t deadline) {
  held_deadline_ = deadline;
  held_until_ = cpu_->instructions + shared_->observer->InstructionsPerTick();
}

Status Ring0Engine::ReleaseTimer(KvmVcpu* vcpu, bool halts) {
  if (held_deadline_ == 0 || (!halts && cpu_->instructions < held_until_)) return OkStatus();
  deadline_ = std::exchange(held_deadline_, 0);
  const kvm_msr_entry entry = {kMsrTscDeadline, 0, deadline_};
  return vcpu->SetMsrs({&entry, 1});
}

void Ring0Engine::OnApicWritten(uint32_t index, uint64_t value) {
  uint32_t targets = 0;
  if (index == kMsrX2ApicCommand) targets = InterruptTargets(value, vcpu_);
  // Of those that waited behind the one that ends, KVM says nothing.
  bool own = index == kMsrX2ApicSelf || (index == kMsrX2ApicEndOfInterrupt && more_may_wait_);
  if (own) targets |= 1u << vcpu_;
  if (targets == 0) return;
  shared_->AnnounceInterrupt(targets);
  if ((targets >> vcpu_ & 1) != 0) cpu_->budget = 1;
}

void Ring0Engine::CountHandOff() {
  kvm_sregs sregs = sregs_;
  sregs.cr3 = cpu_->cr3;
  uint8_t code[15] = {};
  size_t size = GuestVirtual(shared_->memory, sregs, 0).PeekBytes(cpu_->rip, code);
  counters_.CountHandOff({code, size});
}

std::map<std::string, uint64_t> Ring0Engine::Counts() {
  return counters_.ByName(cpu_->instructions, tsc_khz_, &assist_.decoder());
}

}  // namespace cube::vmm::ring0
