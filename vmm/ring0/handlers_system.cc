#include <x86intrin.h>

#include <span>
#include <utility>

#include "vmm/bus.h"
#include "vmm/paging.h"
#include "vmm/ring0/handler_support.h"
#include "vmm/ring0/handlers.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

constexpr uint32_t kMsrFsBase = 0xc0000100;
constexpr uint32_t kMsrGsBase = 0xc0000101;

const Op* HandOff(Cpu& cpu, const Op* op) { return StopAt(cpu, op, Stop::kHandOff); }
const Op* Assist(Cpu& cpu, const Op* op) { return StopAt(cpu, op, Stop::kAssist); }
const Op* Halt(Cpu& cpu, const Op* op) { return StopAt(cpu, op, Stop::kHalt); }

const Op* ComplementCarry(Cpu& cpu, const Op* op) {
  cpu.flags ^= kCarryBit;
  return op + 1;
}
const Op* ClearCarry(Cpu& cpu, const Op* op) {
  cpu.flags &= static_cast<ArithmeticFlags>(~kCarryBit);
  return op + 1;
}
const Op* SetCarry(Cpu& cpu, const Op* op) {
  cpu.flags |= kCarryBit;
  return op + 1;
}
const Op* ClearInterrupt(Cpu& cpu, const Op* op) {
  cpu.system_flags &= ~kFlagInterrupt;
  return op + 1;
}
// The next jump looks for an interrupt that waited: later than the one instruction after which a
// processor may, which software cannot rely on.
const Op* SetInterrupt(Cpu& cpu, const Op* op) {
  if ((cpu.system_flags & kFlagInterrupt) == 0) cpu.budget = 1;
  cpu.system_flags |= kFlagInterrupt;
  return op + 1;
}
const Op* ClearDirection(Cpu& cpu, const Op* op) {
  cpu.system_flags &= ~kFlagDirection;
  return op + 1;
}
const Op* SetDirection(Cpu& cpu, const Op* op) {
  cpu.system_flags |= kFlagDirection;
  return op + 1;
}
template <bool kSet>
const Op* AlignmentFlag(Cpu& cpu, const Op* op) {
  if constexpr (kSet) {
    cpu.system_flags |= kFlagAlignmentCheck;
  } else {
    cpu.system_flags &= ~kFlagAlignmentCheck;
  }
  return op + 1;
}

const Op* Pause(Cpu& cpu, const Op* op) {
  cpu.budget -= cpu.pause_cost;
  cpu.paused = true;
  return op + 1;
}
const Op* Fence(Cpu&, const Op* op) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return op + 1;
}

const Op* SwapGs(Cpu& cpu, const Op* op) {
  std::swap(cpu.segment_base[kGsSegment], cpu.kernel_gs_base);
  return op + 1;
}

// CR4.FSGSBASE off raises #UD: left to KVM, as is an address that is not canonical.
template <bool kWrite, uint8_t kSegment, typename T>
const Op* SegmentBase(Cpu& cpu, const Op* op) {
  if ((cpu.cr4 & kCr4FsGsBase) == 0) return HandOff(cpu, op);
  if constexpr (kWrite) {
    T value = Reg<T>(cpu, op->base);
    if (!IsCanonical(value)) return HandOff(cpu, op);
    cpu.segment_base[kSegment] = value;
  } else {
    SetReg<T>(cpu, op->base, static_cast<T>(cpu.segment_base[kSegment]));
  }
  return op + 1;
}

uint64_t* KnownMsr(Cpu& cpu, uint32_t msr) {
  switch (msr) {
    case kMsrFsBase: return &cpu.segment_base[kFsSegment];
    case kMsrGsBase: return &cpu.segment_base[kGsSegment];
    case kMsrKernelGsBase: return &cpu.kernel_gs_base;
    default: return nullptr;
  }
}
const Op* ReadMsr(Cpu& cpu, const Op* op) {
  const uint64_t* value = KnownMsr(cpu, static_cast<uint32_t>(cpu.r[kRcx]));
  if (value == nullptr) return StopAt(cpu, op, Stop::kMsr);
  cpu.r[kRax] = static_cast<uint32_t>(*value);
  cpu.r[kRdx] = *value >> 32;
  return op + 1;
}
const Op* WriteMsr(Cpu& cpu, const Op* op) {
  uint64_t* to = KnownMsr(cpu, static_cast<uint32_t>(cpu.r[kRcx]));
  uint64_t value = cpu.r[kRdx] << 32 | static_cast<uint32_t>(cpu.r[kRax]);
  if (to == nullptr || !IsCanonical(value)) return StopAt(cpu, op, Stop::kMsr);
  *to = value;
  return op + 1;
}

template <bool kWithAux>
const Op* ReadTsc(Cpu& cpu, const Op* op) {
  if (!cpu.tsc_known) return HandOff(cpu, op);
  uint64_t value = __rdtsc() + cpu.tsc_offset;
  cpu.r[kRax] = static_cast<uint32_t>(value);
  cpu.r[kRdx] = value >> 32;
  if constexpr (kWithAux) cpu.r[kRcx] = static_cast<uint32_t>(cpu.tsc_aux);
  return op + 1;
}

const Op* ReadControl(Cpu& cpu, const Op* op) {
  switch (op->reg) {
    case 0: cpu.r[op->base] = cpu.cr0; break;
    case 2: cpu.r[op->base] = cpu.cr2; break;
    case 3: cpu.r[op->base] = cpu.cr3; break;
    case 4: cpu.r[op->base] = cpu.cr4; break;
    default: return HandOff(cpu, op);
  }
  return op + 1;
}

const Op* WriteControl(Cpu& cpu, const Op* op) {
  uint64_t value = cpu.r[op->base];
  switch (op->reg) {
    case 2:
      cpu.cr2 = value;
      return op + 1;
    case 3:
      // Without PCIDs; what is reserved must raise #GP, which KVM does.
      if ((cpu.cr4 & kCr4Pcid) != 0 || value >> cpu.physical_bits != 0) return HandOff(cpu, op);
      cpu.mmu->LoadCr3(cpu, value);
      return op + 1;
    case 4:
      // The usual way to flush global pages.
      if (((value ^ cpu.cr4) & ~kCr4GlobalPages) != 0) return HandOff(cpu, op);
      cpu.cr4 = value;
      cpu.mmu->FlushAll(cpu);
      return op + 1;
    default:
      return HandOff(cpu, op);
  }
}

const Op* InvalidatePage(Cpu& cpu, const Op* op) {
  cpu.mmu->FlushPage(cpu, Address(cpu, op));
  return op + 1;
}

const Op* StoreIdt(Cpu& cpu, const Op* op) {
  constexpr uint64_t kBase = 2, kSize = 10;
  uint64_t address = Address(cpu, op);
  // Both ends are looked at first, since the two stores must not be done by half.
  for (uint64_t at : {address, address + kSize - 1}) {
    SoftMmu::Page page;
    if (!cpu.mmu->Translate(cpu, at, SoftMmu::Access::kWrite, &page)) return Stopped(cpu, op);
    if (page.host == nullptr) return HandOff(cpu, op);
  }
  if (!Store<uint16_t>(cpu, address, cpu.idt_limit) ||
      !Store<uint64_t>(cpu, address + kBase, cpu.idt_base)) {
    return Stopped(cpu, op);
  }
  return op + 1;
}

uint16_t* SegmentSelector(Cpu& cpu, uint8_t number) {
  switch (number) {
    case 0: return &cpu.es;
    case 1: return &cpu.cs;
    case 2: return &cpu.ss;
    case 3: return &cpu.ds;
    case 4: return &cpu.fs;
    case 5: return &cpu.gs;
    default: return nullptr;
  }
}
// Into a register of 16 bits it leaves the rest; Linux saves FS and GS that way at every switch.
template <bool kMemory, typename T>
const Op* ReadSegment(Cpu& cpu, const Op* op) {
  const uint16_t* selector = SegmentSelector(cpu, op->reg);
  if (selector == nullptr) return HandOff(cpu, op);
  if constexpr (kMemory) {
    if (!Store<uint16_t>(cpu, Address(cpu, op), *selector)) [[unlikely]] return Stopped(cpu, op);
  } else {
    SetReg<T>(cpu, op->base, *selector);
  }
  return op + 1;
}
// Only what needs no look into a descriptor table: the null selector in DS, ES, FS and GS, which
// clears the base of the last two, and the kernel's own in SS.
template <bool kMemory>
const Op* WriteSegment(Cpu& cpu, const Op* op) {
  uint16_t value;
  if constexpr (kMemory) {
    if (!Load<uint16_t>(cpu, Address(cpu, op), &value)) [[unlikely]] return Stopped(cpu, op);
  } else {
    value = static_cast<uint16_t>(cpu.r[op->base]);
  }
  if (op->reg == 2 && value != 0 && value == cpu.kernel_ss) {
    cpu.ss = value;
    return op + 1;
  }
  uint16_t* selector = SegmentSelector(cpu, op->reg);
  if (op->reg == 1 || op->reg == 2 || selector == nullptr || value > 3) return HandOff(cpu, op);
  *selector = value;
  if (op->reg == 4) cpu.segment_base[kFsSegment] = 0;
  if (op->reg == 5) cpu.segment_base[kGsSegment] = 0;
  return op + 1;
}

template <bool kOutput, typename T>
const Op* Port(Cpu& cpu, const Op* op) {
  uint16_t port = op->immediate < 0 ? static_cast<uint16_t>(cpu.r[kRdx])
                                    : static_cast<uint16_t>(op->immediate);
  // What no device of ours answers may be one of KVM's.
  if (cpu.ports == nullptr || !cpu.ports->Claims(port)) {
    cpu.port = port;
    return StopAt(cpu, op, Stop::kPort);
  }
  T value = Reg<T>(cpu, kRax);
  std::span<uint8_t> bytes(reinterpret_cast<uint8_t*>(&value), sizeof(T));
  if constexpr (kOutput) {
    cpu.ports->Write(port, bytes);
  } else {
    cpu.ports->Read(port, bytes);
    SetReg<T>(cpu, kRax, value);
  }
  // The device may have raised an interrupt, or ended the VM.
  cpu.budget = 1;
  return op + 1;
}

const Op* Raise(Cpu& cpu, const Op* op) {
  cpu.exception = {static_cast<uint8_t>(op->immediate), false, op->base == 1, 0, 0};
  if (op->base == 1) {
    const Op* stopped = StopAt(cpu, op, Stop::kException);
    cpu.rip += op->length;
    return stopped;
  }
  return StopAt(cpu, op, Stop::kException);
}

}  // namespace

Handler HandOffHandler() { return HandOff; }
Handler AssistHandler() { return Assist; }
Handler HaltHandler() { return Halt; }
Handler FlagHandler(uint8_t opcode) {
  switch (opcode) {
    case 0xf5: return ComplementCarry;
    case 0xf8: return ClearCarry;
    case 0xf9: return SetCarry;
    case 0xfa: return ClearInterrupt;
    case 0xfb: return SetInterrupt;
    case 0xfc: return ClearDirection;
    case 0xfd: return SetDirection;
    default: return nullptr;
  }
}
Handler PauseHandler() { return Pause; }
Handler FenceHandler() { return Fence; }
Handler AlignmentFlagHandler(bool set) { return set ? AlignmentFlag<true> : AlignmentFlag<false>; }
Handler SwapGsHandler() { return SwapGs; }
Handler SegmentBaseHandler(unsigned kind, unsigned size) {
  bool wide = size == 8;
  switch (kind) {
    case 0: return wide ? SegmentBase<false, kFsSegment, uint64_t> : SegmentBase<false, kFsSegment, uint32_t>;
    case 1: return wide ? SegmentBase<false, kGsSegment, uint64_t> : SegmentBase<false, kGsSegment, uint32_t>;
    case 2: return wide ? SegmentBase<true, kFsSegment, uint64_t> : SegmentBase<true, kFsSegment, uint32_t>;
    default: return wide ? SegmentBase<true, kGsSegment, uint64_t> : SegmentBase<true, kGsSegment, uint32_t>;
  }
}
Handler ReadMsrHandler() { return ReadMsr; }
Handler WriteMsrHandler() { return WriteMsr; }
Handler ReadTscHandler(bool with_aux) { return with_aux ? ReadTsc<true> : ReadTsc<false>; }
Handler ReadControlHandler() { return ReadControl; }
Handler WriteControlHandler() { return WriteControl; }
Handler StoreIdtHandler() { return StoreIdt; }
Handler InvalidatePageHandler() { return InvalidatePage; }
Handler ReadSegmentHandler(bool memory, unsigned size) {
  if (memory) return ReadSegment<true, uint16_t>;
  return size == 2 ? ReadSegment<false, uint16_t> : ReadSegment<false, uint64_t>;
}
Handler WriteSegmentHandler(bool memory) {
  return memory ? WriteSegment<true> : WriteSegment<false>;
}
Handler PortHandler(bool output, unsigned size) {
  switch (size) {
    case 1: return output ? Port<true, uint8_t> : Port<false, uint8_t>;
    case 2: return output ? Port<true, uint16_t> : Port<false, uint16_t>;
    case 4: return output ? Port<true, uint32_t> : Port<false, uint32_t>;
    default: return nullptr;
  }
}
Handler ExceptionHandler() { return Raise; }

}  // namespace cube::vmm::ring0
