#include <utility>

#include "vmm/paging.h"
#include "vmm/ring0/handler_support.h"
#include "vmm/ring0/handlers.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

const Op* JumpRelative(Cpu& cpu, const Op* op) {
  return Jump(cpu, op, cpu.r[kCodePageRegister] + static_cast<uint64_t>(op->immediate));
}

// Not taken, the block goes on.
template <unsigned kCondition>
const Op* JumpIf(Cpu& cpu, const Op* op) {
  if (!Holds<kCondition>(cpu.flags)) return op + 1;
  return Jump(cpu, op, cpu.r[kCodePageRegister] + static_cast<uint64_t>(op->immediate));
}
template <size_t... kConditions>
Handler PickJumpIf(unsigned condition, std::index_sequence<kConditions...>) {
  static constexpr Handler kTable[] = {JumpIf<kConditions>...};
  return kTable[condition];
}

// LOOPNE, LOOPE, LOOP count RCX down first; JRCXZ only looks.
template <unsigned kKind>
const Op* JumpCount(Cpu& cpu, const Op* op) {
  bool taken;
  if constexpr (kKind == 3) {
    taken = cpu.r[kRcx] == 0;
  } else {
    taken = --cpu.r[kRcx] != 0;
    if constexpr (kKind == 0) taken = taken && (cpu.flags & kZeroBit) == 0;
    if constexpr (kKind == 1) taken = taken && (cpu.flags & kZeroBit) != 0;
  }
  if (!taken) return op + 1;
  return Jump(cpu, op, cpu.r[kCodePageRegister] + static_cast<uint64_t>(op->immediate));
}

// A jump to an address that is not canonical raises #GP, whose frame shows the jump itself: KVM
// carries it out.
template <bool kMemory>
const Op* JumpIndirect(Cpu& cpu, const Op* op) {
  uint64_t target;
  if constexpr (kMemory) {
    if (!Load<uint64_t>(cpu, Address(cpu, op), &target)) [[unlikely]] return Stopped(cpu, op);
  } else {
    target = cpu.r[op->base];
  }
  if (!IsCanonical(target)) [[unlikely]] return StopAt(cpu, op, Stop::kHandOff);
  return Jump(cpu, op, target);
}

const Op* CallRelative(Cpu& cpu, const Op* op) {
  if (!Push(cpu, NextRip(cpu, op))) [[unlikely]] return Stopped(cpu, op);
  return Jump(cpu, op, cpu.r[kCodePageRegister] + static_cast<uint64_t>(op->immediate));
}

template <bool kMemory>
const Op* CallIndirect(Cpu& cpu, const Op* op) {
  uint64_t target;
  if constexpr (kMemory) {
    if (!Load<uint64_t>(cpu, Address(cpu, op), &target)) [[unlikely]] return Stopped(cpu, op);
  } else {
    target = cpu.r[op->base];
  }
  if (!IsCanonical(target)) [[unlikely]] return StopAt(cpu, op, Stop::kHandOff);
  if (!Push(cpu, NextRip(cpu, op))) [[unlikely]] return Stopped(cpu, op);
  return Jump(cpu, op, target);
}

const Op* Return(Cpu& cpu, const Op* op) {
  uint64_t target;
  if (!Load<uint64_t>(cpu, cpu.r[kRsp], &target)) [[unlikely]] return Stopped(cpu, op);
  if (!IsCanonical(target)) [[unlikely]] return StopAt(cpu, op, Stop::kHandOff);
  cpu.r[kRsp] += 8 + static_cast<uint64_t>(op->immediate);
  return Jump(cpu, op, target);
}

const Op* PushReg(Cpu& cpu, const Op* op) {
  if (!Push(cpu, cpu.r[op->base])) [[unlikely]] return Stopped(cpu, op);
  return op + 1;
}
const Op* PushImm(Cpu& cpu, const Op* op) {
  if (!Push(cpu, static_cast<uint64_t>(op->immediate))) [[unlikely]] return Stopped(cpu, op);
  return op + 1;
}
const Op* PushMem(Cpu& cpu, const Op* op) {
  uint64_t value;
  if (!Load<uint64_t>(cpu, Address(cpu, op), &value) || !Push(cpu, value)) [[unlikely]] {
    return Stopped(cpu, op);
  }
  return op + 1;
}

const Op* PopReg(Cpu& cpu, const Op* op) {
  uint64_t value;
  if (!Load<uint64_t>(cpu, cpu.r[kRsp], &value)) [[unlikely]] return Stopped(cpu, op);
  cpu.r[kRsp] += 8;
  cpu.r[op->base] = value;
  return op + 1;
}
const Op* PopMem(Cpu& cpu, const Op* op) {
  uint64_t value;
  if (!Load<uint64_t>(cpu, cpu.r[kRsp], &value)) [[unlikely]] return Stopped(cpu, op);
  // An address based on RSP is computed after the increment (SDM volume 2, POP).
  cpu.r[kRsp] += 8;
  if (!Store<uint64_t>(cpu, Address(cpu, op), value)) [[unlikely]] {
    cpu.r[kRsp] -= 8;
    return Stopped(cpu, op);
  }
  return op + 1;
}

const Op* Leave(Cpu& cpu, const Op* op) {
  uint64_t value;
  if (!Load<uint64_t>(cpu, cpu.r[kRbp], &value)) [[unlikely]] return Stopped(cpu, op);
  cpu.r[kRsp] = cpu.r[kRbp] + 8;
  cpu.r[kRbp] = value;
  return op + 1;
}

// What POPF and IRET of ring 0 load: all but VM, VIF, VIP and the reserved bits. RF is cleared by
// POPF, and means nothing between instructions that cannot break.
constexpr uint64_t kLoadedFlags = kFlagsArithmetic | kFlagTrap | kFlagInterrupt | kFlagDirection |
                                  0x3000 | kFlagNestedTask | kFlagAlignmentCheck | 1 << 21;

const Op* PushFlags(Cpu& cpu, const Op* op) {
  if (!Push(cpu, cpu.rflags() & ~(kFlagResume | kFlagVirtual8086))) [[unlikely]] {
    return Stopped(cpu, op);
  }
  return op + 1;
}

const Op* PopFlags(Cpu& cpu, const Op* op) {
  uint64_t value;
  if (!Load<uint64_t>(cpu, cpu.r[kRsp], &value)) [[unlikely]] return Stopped(cpu, op);
  // A trap after every instruction is not what this is made for.
  if ((value & kFlagTrap) != 0) return StopAt(cpu, op, Stop::kHandOff);
  cpu.r[kRsp] += 8;
  uint64_t old = cpu.rflags();
  cpu.set_rflags((old & ~kLoadedFlags) | (value & kLoadedFlags));
  // An interrupt may have waited for this.
  if ((value & ~old & kFlagInterrupt) != 0) cpu.budget = 1;
  return op + 1;
}

// Whether user mode may be entered at `to` without a look into the guest's descriptor tables, and
// without what needs a processor's care: traps, virtual interrupts, segments that must be cleared.
bool IsPlainUserReturn(const Cpu& cpu, const UserReturn& to) {
  constexpr uint64_t kVirtualInterrupts = 3 << 19;
  constexpr uint64_t kCareful = kFlagTrap | kFlagVirtual8086 | kVirtualInterrupts;
  auto kept = [](uint16_t selector) { return selector <= 3 || (selector & 3) == 3; };
  return (to.rflags & kCareful) == 0 && to.rip >> 47 == 0 && (cpu.efer & kEferSyscallEnable) != 0 &&
         kept(cpu.ds) && kept(cpu.es) && kept(cpu.fs) && kept(cpu.gs);
}

const Op* StopForUser(Cpu& cpu, const Op* op, uint64_t cs, uint64_t ss, const UserReturn& to) {
  cpu.user_return.reset();
  if (cs == cpu.user_cs && ss == cpu.user_ss && IsPlainUserReturn(cpu, to)) cpu.user_return = to;
  return StopAt(cpu, op, Stop::kUserReturn);
}

// SYSRET with REX.W (SDM volume 2): RIP from RCX, RFLAGS from R11.
const Op* SystemReturn(Cpu& cpu, const Op* op) {
  constexpr uint64_t kLoadedBySysret = 0x3c7fd7;
  uint64_t flags = (cpu.r[kR11] & kLoadedBySysret) | kFlagReserved;
  return StopForUser(cpu, op, cpu.user_cs, cpu.user_ss, {cpu.r[kRcx], cpu.r[kRsp], flags});
}

const Op* InterruptReturn(Cpu& cpu, const Op* op) {
  uint64_t frame[5];
  for (size_t i = 0; i < 5; ++i) {
    if (!Load<uint64_t>(cpu, cpu.r[kRsp] + 8 * i, &frame[i])) [[unlikely]] return Stopped(cpu, op);
  }
  uint64_t cs = frame[1] & 0xffff, ss = frame[4] & 0xffff;
  if ((cs & 3) == 3) {
    // With NT it is a return to another task, which 64-bit mode refuses.
    if ((cpu.system_flags & kFlagNestedTask) != 0) return StopAt(cpu, op, Stop::kHandOff);
    uint64_t flags = (frame[2] & (kLoadedFlags | kFlagResume | kFlagVirtual8086 | 3 << 19)) |
                     kFlagReserved;
    return StopForUser(cpu, op, cs, ss, {frame[0], frame[3], flags});
  }
  bool simple = cs == cpu.cs && (ss == 0 || ss == cpu.ds || ss == cpu.ss) &&
                (frame[2] & (kFlagTrap | kFlagVirtual8086)) == 0 &&
                (cpu.system_flags & kFlagNestedTask) == 0 && IsCanonical(frame[0]);
  if (!simple || std::exchange(cpu.in_nmi, false)) return StopAt(cpu, op, Stop::kHandOff);
  uint64_t old = cpu.rflags();
  cpu.set_rflags((old & ~kLoadedFlags) | (frame[2] & kLoadedFlags));
  cpu.r[kRsp] = frame[3];
  cpu.ss = static_cast<uint16_t>(ss);
  if ((frame[2] & ~old & kFlagInterrupt) != 0) cpu.budget = 1;
  return Jump(cpu, op, frame[0]);
}

const Op* NoOperation(Cpu&, const Op* op) { return op + 1; }

}  // namespace

Handler JumpHandler() { return JumpRelative; }
Handler ConditionalJumpHandler(unsigned condition) {
  return PickJumpIf(condition, std::make_index_sequence<16>());
}
Handler JumpCountZeroHandler(unsigned kind) {
  switch (kind) {
    case 0: return JumpCount<0>;
    case 1: return JumpCount<1>;
    case 2: return JumpCount<2>;
    default: return JumpCount<3>;
  }
}
Handler IndirectJumpHandler(bool memory) {
  return memory ? JumpIndirect<true> : JumpIndirect<false>;
}
Handler CallHandler() { return CallRelative; }
Handler IndirectCallHandler(bool memory) {
  return memory ? CallIndirect<true> : CallIndirect<false>;
}
Handler ReturnHandler() { return Return; }
Handler PushHandler(Form form) {
  return form == Form::kRegReg ? PushReg : form == Form::kRegImm ? PushImm : PushMem;
}
Handler PopHandler(bool memory) { return memory ? PopMem : PopReg; }
Handler LeaveHandler() { return Leave; }
Handler PushFlagsHandler() { return PushFlags; }
Handler PopFlagsHandler() { return PopFlags; }
Handler InterruptReturnHandler() { return InterruptReturn; }
Handler SystemReturnHandler() { return SystemReturn; }
Handler NoOperationHandler() { return NoOperation; }

}  // namespace cube::vmm::ring0
