#include "vmm/ring0/ring0_engine.h"

#include <x86intrin.h>

#include <cstring>

#include "vmm/assist/guest_virtual.h"
#include "vmm/ring0/handler_support.h"
#include "vmm/ring0/interpreter.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

// Jumps between two looks at the world: some tens of microseconds.
constexpr int32_t kBudget = 2048;
constexpr int32_t kPauseCost = 256;
// How long an interrupt that nothing announced may wait for KVM to be asked.
constexpr uint64_t kPollMicroseconds = 1000;
constexpr uint64_t kFlagsAfterSyscall = ~(kFlagResume | kFlagVirtual8086);
constexpr uint64_t kMsrLength = 2;
constexpr uint32_t kMsrX2ApicCommand = 0x830;
constexpr uint32_t kMsrTscAdjust = 0x3b;
// #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX (SDM volume 3, table 6-1; AMD APM volume 2, 8.2).
constexpr uint32_t kVectorsWithErrorCode = 0x60227d00;

}  // namespace

Ring0Engine::Ring0Engine(Ring0Shared* shared, uint32_t vcpu, XsaveLayout layout)
    : shared_(shared),
      cpu_(std::make_unique<Cpu>()),
      mmu_(shared->memory, shared->mmio, &shared->flags, &shared->tables, &shared->code),
      stub_(vcpu, shared->stubs.Of(vcpu)),
      assist_(shared->memory, std::move(layout)) {
  cpu_->single = single_;
  cpu_->mmu = &mmu_;
  cpu_->code = &shared->code;
  cpu_->ports = shared->ports;
  mmu_.FlushAll(*cpu_);
}

Ring0Engine::~Ring0Engine() { Leave(); }

void Ring0Engine::Leave() {
  if (!locked_) return;
  locked_ = false;
  shared_->Release();
}

Status Ring0Engine::Start(KvmVcpu* vcpu, uint8_t physical_bits, bool several_vcpus) {
  cpu_->physical_bits = physical_bits;
  several_vcpus_ = several_vcpus;
  cpu_->pause_cost = several_vcpus ? kPauseCost : 0;
  auto offset = vcpu->TscOffset();
  cpu_->tsc_known = offset.ok();
  if (offset.ok()) cpu_->tsc_offset = *offset;
  uint64_t khz = vcpu->TscKhz();
  poll_interval_ = (khz == 0 ? 2000000 : khz) * kPollMicroseconds / 1000;
  const uint32_t msrs[] = {kMsrKernelGsBase, kMsrTscAux, kMsrStar, kMsrLstar, kMsrSyscallMask};
  CUBE_ASSIGN(std::vector<kvm_msr_entry> values, vcpu->GetMsrs(msrs));
  cpu_->kernel_gs_base = kvm_kernel_gs_base_ = values[0].data;
  cpu_->tsc_aux = values[1].data;
  star_ = values[2].data;
  SetKernelStackSelector();
  lstar_ = values[3].data;
  flag_mask_ = values[4].data;
  last_run_ = __rdtsc();
  emulated_ = vcpu->OpenStatistic("insn_emulation");
  shared_->Acquire();  // all vCPUs start at once
  locked_ = true;
  shared_->roots.push_back(&cpu_->cr3);
  shared_->interrupts.push_back(&interrupt_announced_);
  CUBE_ASSIGN(const kvm_sregs* sregs, vcpu->sregs());
  idt_limit_ = shown_idt_limit_ = sregs->idt.limit;
  idt_base_ = shown_idt_base_ = sregs->idt.base;
  CUBE_TRY(Load(vcpu));
  Leave();
  return OkStatus();
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
    idt_base_ = shown_idt_base_ = sregs->idt.base;
    idt_limit_ = shown_idt_limit_ = sregs->idt.limit;
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
  if (wanted.cs.selector != cpu.cs) wanted.cs = LongModeCode(cpu.cs, 0);
  if (wanted.ss.selector != cpu.ss) wanted.ss = LongModeData(cpu.ss, 0);
  // In 64-bit mode the rest of these means nothing.
  wanted.ds.selector = cpu.ds;
  wanted.es.selector = cpu.es;
  wanted.fs.selector = cpu.fs;
  wanted.gs.selector = cpu.gs;
  shown_idt_base_ = stub_.mapped() ? stub_.idt_base() : idt_base_;
  shown_idt_limit_ = stub_.mapped() ? KvmStub::kIdtLimit : idt_limit_;
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

Status Ring0Engine::SetDebug(KvmVcpu* vcpu, bool step) {
  if (step == stepping_) return OkStatus();
  kvm_guest_debug debug = {};
  if (step) debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  CUBE_TRY(vcpu->SetGuestDebug(debug));
  stepping_ = step;
  return OkStatus();
}

// Leaves the vCPU so that KVM_RUN does what `mode` says.
Status Ring0Engine::Enter(KvmVcpu* vcpu, Mode mode) {
  if ((cpu_->efer & kEferLongModeActive) != 0 && !stub_.Map(shared_->memory, cpu_->cr3, cpu_->cs)) {
    return Errorf("CR3 %#llx is not memory", static_cast<unsigned long long>(cpu_->cr3));
  }
  CUBE_TRY(Save(vcpu));
  CUBE_TRY(SetDebug(vcpu, mode == Mode::kStep));
  if (mode != Mode::kStep && cpu_->kernel_gs_base != kvm_kernel_gs_base_) {
    const kvm_msr_entry entry = {kMsrKernelGsBase, 0, cpu_->kernel_gs_base};
    CUBE_TRY(vcpu->SetMsrs({&entry, 1}));
    kvm_kernel_gs_base_ = cpu_->kernel_gs_base;
  }
  mode_ = mode;
  if (mode == Mode::kUser) vcpu->NextRunIsUserMode();
  // STI and HLT themselves.
  if (mode == Mode::kHalt) expected_emulated_ = emulated_.Read() + 2;
  if (mode != Mode::kReplay) Leave();
  return OkStatus();
}

// Enters user mode by way of the entries that KVM must store again first. With one vCPU the code
// that does so goes on to the guest's own return; with several, all must know that it is done
// before another enters user mode, so the lock is kept until it has come back.
Status Ring0Engine::EnterReplay(KvmVcpu* vcpu) {
  ++counters_.replays;
  stub_.PrepareReplay(&shared_->tables.replay_queue(), several_vcpus_ ? 0 : cpu_->rip);
  bool goes_on = !several_vcpus_ && shared_->tables.replay_queue().empty();
  if (goes_on) ++counters_.user_entries;
  CUBE_TRY(Enter(vcpu, goes_on ? Mode::kUser : Mode::kReplay));
  CUBE_ASSIGN(kvm_regs * regs, vcpu->mutable_regs());
  regs->rip = stub_.replay_entry();
  // No interrupt may show the guest the stub as its own code; the return sets the flag anew.
  regs->rflags &= ~kFlagInterrupt;
  return OkStatus();
}

bool Ring0Engine::InterruptMayWait() const {
  if ((cpu_->system_flags & kFlagInterrupt) == 0) return false;
  if (interrupt_announced_.load(std::memory_order_relaxed)) return true;
  uint64_t now = __rdtsc();
  return now + cpu_->tsc_offset >= deadline_ || now - last_run_ > poll_interval_;
}

Result<Ring0Engine::Outcome> Ring0Engine::BeforeRun(KvmVcpu* vcpu) {
  if (mode_ == Mode::kUser) vcpu->NextRunIsUserMode();
  if (mode_ != Mode::kInterpret) return Outcome::kRun;
  if (!locked_) {
    shared_->Acquire();
    locked_ = true;
    mmu_.Refresh(*cpu_);
  }
  while (true) {
    if (!Interpretable()) {
      CUBE_TRY(Enter(vcpu, Mode::kStep));
      return Outcome::kRun;
    }
    cpu_->budget = kBudget;
    Stop stop = ring0::Interpret(*cpu_);
    CUBE_ASSIGN(Outcome outcome, OnStop(vcpu, stop));
    // kNotMine: nothing for KVM, the interpreter goes on.
    if (outcome != Outcome::kNotMine) return outcome;
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
      if (InterruptMayWait()) {
        // One step lets KVM inject what is pending, which then comes through the stub.
        ++counters_.injections;
        interrupt_announced_.store(false, std::memory_order_relaxed);
        if (__rdtsc() + cpu_->tsc_offset >= deadline_) deadline_ = ~0ull;
        CUBE_TRY(Enter(vcpu, Mode::kStep));
        return Outcome::kRun;
      }
      shared_->Yield();
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
      if (!shared_->tables.replay_queue().empty()) {
        CUBE_TRY(EnterReplay(vcpu));
      } else {
        ++counters_.user_entries;
        CUBE_TRY(Enter(vcpu, Mode::kUser));
      }
      return Outcome::kRun;
    case Stop::kHalt:
      CUBE_TRY(Enter(vcpu, Mode::kHalt));
      return Outcome::kRun;
    case Stop::kHandOff:
      CountHandOff();
      CUBE_TRY(Enter(vcpu, Mode::kStep));
      return Outcome::kRun;
    case Stop::kNone:
      break;
  }
  return Errorf("the ring-0 interpreter stopped at %#llx without a reason",
                static_cast<unsigned long long>(cpu_->rip));
}

// The exception or interrupt is delivered with the registers of the interpreter.
bool Ring0Engine::Deliver(const Exception& exception) {
  Cpu& cpu = *cpu_;
  kvm_regs regs = {};
  regs.rip = cpu.rip;
  regs.rsp = cpu.r[kRsp];
  regs.rflags = cpu.rflags();
  kvm_sregs sregs = sregs_;
  sregs.cr3 = cpu.cr3;
  sregs.cr4 = cpu.cr4;
  sregs.idt.base = idt_base_;
  sregs.idt.limit = idt_limit_;
  sregs.cs.selector = cpu.cs;
  sregs.cs.dpl = cpu.cs & 3;
  sregs.ss.selector = cpu.ss;
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
      CUBE_TRY(Enter(vcpu, Mode::kStep));
      return Outcome::kRun;
  }
}

Result<Ring0Engine::Outcome> Ring0Engine::AccessMsr(KvmVcpu* vcpu) {
  Cpu& cpu = *cpu_;
  ++counters_.msrs;
  SoftMmu::Page page;
  // WRMSR is 0f 30, RDMSR 0f 32.
  bool write = mmu_.Translate(cpu, cpu.rip + 1, SoftMmu::Access::kFetch, &page) &&
               page.host != nullptr && *page.host == 0x30;
  auto index = static_cast<uint32_t>(cpu.r[kRcx]);
  uint64_t value = cpu.r[kRdx] << 32 | static_cast<uint32_t>(cpu.r[kRax]);
  bool direct = index == kMsrTscDeadline || index == kMsrStar || index == kMsrLstar ||
                index == kMsrSyscallMask;
  if (!write || !direct) {
    CountMsrHandOff(write, index);
    if (write) stepped_msr_ = index;
    CUBE_TRY(Enter(vcpu, Mode::kStep));
    return Outcome::kRun;
  }
  const kvm_msr_entry entry = {index, 0, value};
  if (!vcpu->SetMsrs({&entry, 1}).ok()) {
    return Deliver({kVectorGeneralProtection, 0, std::nullopt}) ? Outcome::kNotMine : Outcome::kTripleFault;
  }
  cpu.rip += kMsrLength;
  switch (index) {
    case kMsrTscDeadline: deadline_ = value == 0 ? ~0ull : value; break;
    case kMsrStar:
      star_ = value;
      SetKernelStackSelector();
      break;
    case kMsrLstar: lstar_ = value; break;
    case kMsrSyscallMask: flag_mask_ = value; break;
    default: break;
  }
  return Outcome::kNotMine;
}

// ---- after KVM_RUN

Result<Ring0Engine::Outcome> Ring0Engine::TakeOver(KvmVcpu* vcpu) {
  if (!locked_) {
    shared_->Acquire();
    locked_ = true;
  }
  stub_.Unmap();
  CUBE_TRY(Load(vcpu));
  mmu_.Refresh(*cpu_);
  bool halted = mode_ == Mode::kHalt;
  mode_ = Mode::kInterpret;
  if (halted && emulated_.Read() > expected_emulated_) CUBE_TRY(Resynchronise(vcpu));
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
      CUBE_ASSIGN(InstructionAssist::Outcome outcome, assist_.CarryOut(vcpu));
      if (outcome == InstructionAssist::Outcome::kInvalid) return Outcome::kRun;
      if (outcome == InstructionAssist::Outcome::kTripleFault) return Outcome::kTripleFault;
      if (outcome == InstructionAssist::Outcome::kUnknown) return Outcome::kUnhandled;
      return TakeOver(vcpu);
    }
    case KVM_EXIT_IO: {
      if (run->io.direction != KVM_EXIT_IO_OUT) return Outcome::kNotMine;
      if (run->io.port == KvmStub::kReplayPort && mode_ == Mode::kReplay) {
        // The interpreter's state stands; what KVM holds beside its segments is the stub's.
        stub_.Unmap();
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
  if (index == kMsrX2ApicCommand) shared_->AnnounceInterrupt(&interrupt_announced_);
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
  CUBE_TRY(TakeOver(vcpu));
  ++counters_.takeovers;
  Cpu& cpu = *cpu_;
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
  // Undone, and then delivered to the guest's own handler.
  cpu.rip = frame[1];
  cpu.cs = static_cast<uint16_t>(frame[2]);
  cpu.set_rflags(mode == Mode::kStep ? frame[3] & ~kFlagTrap : frame[3]);
  cpu.r[kRsp] = frame[4];
  cpu.ss = static_cast<uint16_t>(frame[5]);
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
  if (vector == kVectorPageFault) event.fault_address = cpu.cr2;
  return Deliver(event) ? Outcome::kRun : Outcome::kTripleFault;
}

// SYSCALL (SDM volume 2): CS and SS from STAR[47:32], the stack stays the user's. The frame's flags,
// not R11, are masked: R11 is the user's to forge by a jump to LSTAR.
void Ring0Engine::CompleteSyscall(uint64_t user_flags, uint64_t user_stack) {
  Cpu& cpu = *cpu_;
  cpu.cs = static_cast<uint16_t>(star_ >> 32 & 0xfffc);
  cpu.ss = cpu.kernel_ss;
  cpu.rip = lstar_;
  cpu.r[kRsp] = user_stack;
  cpu.set_rflags(user_flags & ~flag_mask_ & kFlagsAfterSyscall);
}

void Ring0Engine::SetKernelStackSelector() {
  cpu_->kernel_ss = static_cast<uint16_t>((star_ >> 32 & 0xfffc) + 8);
}

void Ring0Engine::CountHandOff() {
  kvm_sregs sregs = sregs_;
  sregs.cr3 = cpu_->cr3;
  HandOff found;
  GuestVirtual(shared_->memory, sregs, 0).PeekBytes(cpu_->rip, found.bytes);
  uint32_t key;
  memcpy(&key, found.bytes.data(), sizeof key);
  HandOff& hand_off = hand_offs_.try_emplace(key, found).first->second;
  ++hand_off.count;
}

void Ring0Engine::CountMsrHandOff(bool write, uint32_t index) { ++msr_hand_offs_[{write, index}]; }

std::map<std::string, uint64_t> Ring0Engine::Counts() {
  std::map<std::string, uint64_t> counts = {
      {"ring0 instructions", cpu_->instructions},
      {"ring0 takeovers", counters_.takeovers},
      {"ring0 syscalls", counters_.syscalls},
      {"ring0 faults", counters_.faults},
      {"ring0 interrupts", counters_.interrupts},
      {"ring0 steps", counters_.steps},
      {"ring0 polls", counters_.polls},
      {"ring0 injections", counters_.injections},
      {"ring0 user entries", counters_.user_entries},
      {"ring0 replays", counters_.replays},
      {"ring0 assists", counters_.assists},
      {"ring0 msrs", counters_.msrs},
      {"ring0 exceptions", counters_.exceptions},
      {"ring0 resynchronisations", counters_.resynchronisations},
  };
  for (const auto& [key, hand_off] : hand_offs_) {
    auto instruction = assist_.decoder().Decode(hand_off.bytes);
    std::string name = instruction ? instruction->mnemonic : Format("bytes %08x", key);
    counts["ring0 handed to KVM: " + name] += hand_off.count;
  }
  for (const auto& [msr, count] : msr_hand_offs_) {
    counts[Format("ring0 handed to KVM: %s %#x", msr.first ? "wrmsr" : "rdmsr", msr.second)] =
        count;
  }
  return counts;
}

}  // namespace cube::vmm::ring0
