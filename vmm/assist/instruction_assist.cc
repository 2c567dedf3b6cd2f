#include "vmm/assist/instruction_assist.h"

#include <capstone/capstone.h>
#include <sys/random.h>

#include <bit>
#include <cstring>

#include "vmm/memory_map.h"
#include "vmm/paging.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

constexpr size_t kMaxInstructionLength = 15;

uint64_t SizeMask(uint8_t size) { return size == 8 ? ~0ull : (1ull << size * 8) - 1; }

// POPCNT clears every arithmetic flag but ZF, which tells of a zero source.
bool PopulationCount(OperandAccess* access) {
  const auto& [destination, source, unused] = access->instruction().operands;
  auto value = access->Read(source);
  if (!value || !access->Write(destination, static_cast<uint64_t>(std::popcount(*value)))) {
    return false;
  }
  access->SetArithmeticFlags(*value == 0 ? kFlagZero : 0);
  return true;
}

// CRC32 accumulates the Castagnoli polynomial, bit-reflected (SDM volume 2, CRC32).
bool Crc32(OperandAccess* access) {
  const auto& [destination, source, unused] = access->instruction().operands;
  auto crc = access->Read(destination);
  auto data = access->Read(source);
  if (!crc || !data) return false;
  uint8_t size = source.kind == Operand::Kind::kMemory ? source.memory.size : source.reg.size;
  uint32_t value = static_cast<uint32_t>(*crc);
  for (int i = 0; i < size; ++i) {
    value ^= static_cast<uint8_t>(*data >> i * 8);
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? 0x82f63b78u : 0);
  }
  return access->Write(destination, value);
}

// CMPXCHG16B. The exchange is a real one: another vCPU, in user mode, may race for the same bytes.
bool CompareExchange16(OperandAccess* access) {
  kvm_regs& regs = access->regs();
  uint64_t address = access->Address(access->instruction().operands[0].memory);
  if (address % 16 != 0) return access->Raise(kVectorGeneralProtection, 0);
  // The processor writes in either case, so a read-only page faults in either case.
  auto slice = access->Exchangeable(address, 16);
  if (!slice) return false;
  unsigned char equal;
  uint64_t low = regs.rax, high = regs.rdx;
  asm volatile("lock cmpxchg16b %1"
               : "=@ccz"(equal), "+m"(*reinterpret_cast<unsigned __int128*>(slice->data())),
                 "+a"(low), "+d"(high)
               : "b"(static_cast<uint64_t>(regs.rbx)), "c"(static_cast<uint64_t>(regs.rcx))
               : "memory");
  if (equal != 0) {
    regs.rflags |= kFlagZero;
  } else {
    regs.rax = low;
    regs.rdx = high;
    regs.rflags &= ~kFlagZero;
  }
  return true;
}

// RDRAND and RDSEED never run dry here: the host's generator answers.
bool RandomNumber(OperandAccess* access) {
  uint64_t value = 0;
  if (getrandom(&value, sizeof value, 0) != sizeof value) return false;
  const Operand& destination = access->instruction().operands[0];
  if (!access->Write(destination, value & SizeMask(destination.reg.size))) return false;
  access->SetArithmeticFlags(kFlagCarry);
  return true;
}

bool SegmentBase(OperandAccess* access, unsigned id) {
  if ((access->sregs().cr4 & kCr4FsGsBase) == 0) {
    return access->Raise(kVectorInvalidOpcode, std::nullopt);
  }
  const Operand& operand = access->instruction().operands[0];
  bool fs = id == X86_INS_RDFSBASE || id == X86_INS_WRFSBASE;
  kvm_segment& segment = fs ? access->sregs().fs : access->sregs().gs;
  if (id == X86_INS_RDFSBASE || id == X86_INS_RDGSBASE) return access->Write(operand, segment.base);
  auto value = access->Read(operand);
  if (!value) return false;
  if (!IsCanonical(*value)) return access->Raise(kVectorGeneralProtection, 0);
  segment.base = *value;
  return true;
}

// The descriptor that a selector names, or nothing if ring 0 cannot name one. Kernels keep no LDT
// of interest to themselves: selectors of it count as unusable.
struct Descriptor {
  uint64_t bits;
  bool code_or_data() const { return (bits >> 44 & 1) != 0; }
  uint8_t type() const { return bits >> 40 & 0xf; }
  bool code() const { return (type() & 8) != 0; }
  uint8_t privilege() const { return bits >> 45 & 3; }
};

// A selector has 16 bits, whatever the decoder makes of the other operand's size.
std::optional<uint64_t> ReadSelector(OperandAccess* access, Operand operand) {
  operand.memory.size = operand.reg.size = 2;
  return access->Read(operand);
}

// False if a fault was raised; an empty descriptor if the selector is not usable.
bool ReadDescriptor(OperandAccess* access, uint64_t selector, std::optional<Descriptor>* found) {
  uint64_t index = selector & 0xfff8;
  const kvm_dtable& table = access->sregs().gdt;
  if (index == 0 || (selector & 4) != 0 || index + 7 > table.limit) return true;
  Descriptor descriptor = {};
  if (!access->ReadBytes(table.base + index, {reinterpret_cast<uint8_t*>(&descriptor.bits), 8})) {
    return false;
  }
  bool conforming = descriptor.code_or_data() && descriptor.code() && (descriptor.type() & 4) != 0;
  if (conforming || descriptor.privilege() >= (selector & 3)) *found = descriptor;
  return true;
}

// VERR and VERW: ZF if the segment could be read or written from here. Kernels use VERW for its
// side effect on the processor's buffers alone.
bool VerifySegment(OperandAccess* access, bool write) {
  auto selector = ReadSelector(access, access->instruction().operands[0]);
  std::optional<Descriptor> found;
  if (!selector || !ReadDescriptor(access, *selector, &found)) return false;
  access->regs().rflags &= ~kFlagZero;
  if (!found || !found->code_or_data()) return true;
  // Bit 1 of the type: a data segment may be written, a code segment read.
  bool second = (found->type() & 2) != 0;
  bool allowed = write ? !found->code() && second : !found->code() || second;
  if (allowed) access->regs().rflags |= kFlagZero;
  return true;
}

// LSL and LAR: a segment's limit or access rights, and ZF if there are any. Linux's entry code on
// IST stacks reads its CPU number from the limit of a segment.
bool LoadSegmentField(OperandAccess* access, bool limit) {
  const auto& [destination, source, unused] = access->instruction().operands;
  auto selector = ReadSelector(access, source);
  std::optional<Descriptor> found;
  if (!selector || !ReadDescriptor(access, *selector, &found)) return false;
  access->regs().rflags &= ~kFlagZero;
  // Of the system descriptors 64-bit mode knows LDT and TSS; LAR also takes call gates.
  bool system = found && !found->code_or_data();
  uint8_t type = found ? found->type() : 0;
  bool known = type == 2 || type == 9 || type == 11 || (!limit && type == 12);
  if (!found || (system && !known)) return true;
  uint64_t value;
  if (limit) {
    value = (found->bits & 0xffff) | (found->bits >> 32 & 0xf0000);
    if ((found->bits >> 55 & 1) != 0) value = value << 12 | 0xfff;
  } else {
    value = found->bits >> 32 & 0x00f0ff00;
  }
  access->regs().rflags |= kFlagZero;
  return access->Write(destination, value);
}

// XGETBV of XCR0, or of the components in use (index 1).
Result<bool> GetExtendedControl(KvmVcpu* vcpu, OperandAccess* access) {
  if ((access->sregs().cr4 & kCr4OsXsave) == 0) {
    return access->Raise(kVectorInvalidOpcode, std::nullopt);
  }
  uint32_t index = static_cast<uint32_t>(access->regs().rcx);
  if (index > 1) return access->Raise(kVectorGeneralProtection, 0);
  CUBE_ASSIGN(kvm_xcrs xcrs, vcpu->GetXcrs());
  uint64_t value = xcrs.xcrs[0].value;
  if (index == 1) {
    std::vector<uint8_t> area(vcpu->xsave_size());
    CUBE_TRY(vcpu->GetXsave(area));
    uint64_t in_use;
    memcpy(&in_use, area.data() + 512, sizeof in_use);
    value &= in_use;
  }
  access->regs().rax = value & 0xffffffff;
  access->regs().rdx = value >> 32;
  return true;
}

// INVPCID of every type is answered by forgetting all: KVM drops its shadow of the guest's tables
// when CR4.PGE changes and changes back.
Result<bool> InvalidatePcid(KvmVcpu* vcpu, OperandAccess* access) {
  const auto& [type, descriptor, unused] = access->instruction().operands;
  auto kind = access->Read(type);
  uint8_t bytes[16];
  if (!kind) return false;
  if (*kind > 3) return access->Raise(kVectorGeneralProtection, 0);
  if (!access->ReadBytes(access->Address(descriptor.memory), bytes)) return false;
  uint64_t pcid, linear;
  memcpy(&pcid, bytes, sizeof pcid);
  memcpy(&linear, bytes + 8, sizeof linear);
  // Types 0 and 1 name a PCID, which is 0 unless CR4.PCIDE is set; type 0 an address too.
  uint64_t largest = (access->sregs().cr4 & kCr4Pcid) != 0 ? 0xfff : 0;
  if ((*kind <= 1 && pcid > largest) || (*kind == 0 && !IsCanonical(linear))) {
    return access->Raise(kVectorGeneralProtection, 0);
  }
  CUBE_ASSIGN(kvm_sregs * sregs, vcpu->mutable_sregs());
  sregs->cr4 ^= kCr4GlobalPages;
  CUBE_TRY(vcpu->FlushRegistersNow());
  CUBE_ASSIGN(kvm_sregs * again, vcpu->mutable_sregs());
  again->cr4 ^= kCr4GlobalPages;
  CUBE_TRY(vcpu->FlushRegistersNow());
  return true;
}

}  // namespace

Result<bool> InstructionAssist::Execute(KvmVcpu* vcpu, OperandAccess* access, bool* known) {
  using Save = ExtendedState::Save;
  const Instruction& instruction = access->instruction();
  const Operand& first = instruction.operands[0];
  auto address = [&] { return access->Address(first.memory); };
  // By these bits of CR0 an operating system that loads the FPU lazily asks for #NM.
  auto x87_usable = [&](uint64_t trapped) {
    if ((access->sregs().cr0 & trapped) == 0) return true;
    return access->Raise(kVectorDeviceNotAvailable, std::nullopt);
  };
  // The xsave family needs CR4.OSXSAVE, and a task switch may have left CR0.TS set.
  auto extended_usable = [&] {
    if ((access->sregs().cr4 & kCr4OsXsave) == 0) {
      return access->Raise(kVectorInvalidOpcode, std::nullopt);
    }
    return x87_usable(kCr0TaskSwitched);
  };
  auto sse_usable = [&] {
    if ((access->sregs().cr0 & kCr0Emulation) != 0 || (access->sregs().cr4 & kCr4OsFxsr) == 0) {
      return access->Raise(kVectorInvalidOpcode, std::nullopt);
    }
    return x87_usable(kCr0TaskSwitched);
  };
  *known = true;
  if (instruction.locked && instruction.id != X86_INS_CMPXCHG16B) {
    return access->Raise(kVectorInvalidOpcode, std::nullopt);
  }
  switch (instruction.id) {
    case X86_INS_XSAVE:
    case X86_INS_XSAVE64:
      if (!extended_usable()) return false;
      return extended_.Store(vcpu, access, address(), Save::kStandard);
    case X86_INS_XSAVEOPT:
    case X86_INS_XSAVEOPT64:
      if (!extended_usable()) return false;
      return extended_.Store(vcpu, access, address(), Save::kOptimized);
    case X86_INS_XSAVEC:
    case X86_INS_XSAVEC64:
    case X86_INS_XSAVES:
    case X86_INS_XSAVES64:
      if (!extended_usable()) return false;
      return extended_.Store(vcpu, access, address(), Save::kCompacted);
    case X86_INS_XRSTOR:
    case X86_INS_XRSTOR64:
      if (!extended_usable()) return false;
      return extended_.Load(vcpu, access, address(), false);
    case X86_INS_XRSTORS:
    case X86_INS_XRSTORS64:
      if (!extended_usable()) return false;
      return extended_.Load(vcpu, access, address(), true);
    case X86_INS_XGETBV:
      return GetExtendedControl(vcpu, access);
    case X86_INS_LDMXCSR:
      if (!sse_usable()) return false;
      return extended_.LoadMxcsr(vcpu, access, first);
    case X86_INS_STMXCSR:
      if (!sse_usable()) return false;
      return extended_.StoreMxcsr(vcpu, access, first);
    case X86_INS_FNINIT:
      if (!x87_usable(kCr0Emulation | kCr0TaskSwitched)) return false;
      CUBE_TRY(extended_.InitX87(vcpu));
      return true;
    case X86_INS_FNCLEX:
      if (!x87_usable(kCr0Emulation | kCr0TaskSwitched)) return false;
      CUBE_TRY(extended_.ClearX87Exceptions(vcpu));
      return true;
    case X86_INS_WAIT:
      // A pending x87 exception would be raised by the next x87 instruction of its owner.
      return (access->sregs().cr0 & kCr0MonitorCoprocessor) == 0 || x87_usable(kCr0TaskSwitched);
    case X86_INS_CMPXCHG16B:
      return CompareExchange16(access);
    case X86_INS_POPCNT:
      return PopulationCount(access);
    case X86_INS_CRC32:
      return Crc32(access);
    case X86_INS_CLAC:
      access->regs().rflags &= ~kFlagAlignmentCheck;
      return true;
    case X86_INS_STAC:
      access->regs().rflags |= kFlagAlignmentCheck;
      return true;
    case X86_INS_INT3:
      return access->RaiseSoftware(kVectorBreakpoint);
    case X86_INS_INT:
      return access->RaiseSoftware(static_cast<uint8_t>(first.immediate));
    case X86_INS_RDRAND:
    case X86_INS_RDSEED:
      return RandomNumber(access);
    case X86_INS_RDFSBASE:
    case X86_INS_RDGSBASE:
    case X86_INS_WRFSBASE:
    case X86_INS_WRGSBASE:
      return SegmentBase(access, instruction.id);
    case X86_INS_VERR:
      return VerifySegment(access, false);
    case X86_INS_VERW:
      return VerifySegment(access, true);
    case X86_INS_LSL:
      return LoadSegmentField(access, true);
    case X86_INS_LAR:
      return LoadSegmentField(access, false);
    case X86_INS_INVPCID:
      return InvalidatePcid(vcpu, access);
    case X86_INS_CLFLUSHOPT:
    case X86_INS_CLWB:
      // Caches are coherent; but the processor looks the address up, as for a load.
      return access->CheckRead(address());
    case X86_INS_PREFETCH:
    case X86_INS_PREFETCHW:
    case X86_INS_PREFETCHNTA:
    case X86_INS_PREFETCHT0:
    case X86_INS_PREFETCHT1:
    case X86_INS_PREFETCHT2:
    case X86_INS_PAUSE:
    case X86_INS_ENDBR64:
      // Hints may be ignored; none of them faults.
      return true;
    case X86_INS_UD0:
    case X86_INS_UD2:
    case X86_INS_UD2B:
      return access->Raise(kVectorInvalidOpcode, std::nullopt);
    default:
      *known = false;
      return true;
  }
}

Result<InstructionAssist::Outcome> InstructionAssist::CarryOut(KvmVcpu* vcpu) {
  CUBE_ASSIGN(const kvm_regs* seen_regs, vcpu->regs());
  CUBE_ASSIGN(const kvm_sregs* seen_sregs, vcpu->sregs());
  if (seen_sregs->cs.dpl != 0 || seen_sregs->cs.l == 0) return Outcome::kUnknown;
  uint8_t bytes[kMaxInstructionLength];
  GuestVirtual guest(memory_, *seen_sregs, seen_regs->rflags);
  size_t size = guest.PeekBytes(seen_regs->rip, bytes);
  auto instruction = decoder_.Decode({bytes, size});
  if (!instruction) return Outcome::kInvalid;

  // Worked on in copies, so that what fails half-way leaves nothing behind.
  kvm_regs regs = *seen_regs;
  kvm_sregs sregs = *seen_sregs;
  OperandAccess access(memory_, *instruction, &regs, &sregs);
  bool known = false;
  CUBE_ASSIGN(bool done, Execute(vcpu, &access, &known));
  if (!known) return Outcome::kUnknown;
  ++counts_[instruction->mnemonic];
  if (done) {
    regs.rip += instruction->length;
    regs.rflags &= ~kFlagResume;
  } else {
    if (!access.exception()) return Errorf("%s failed", instruction->mnemonic.c_str());
    if (!DeliverException(memory_, *access.exception(), &regs, &sregs)) {
      return Outcome::kTripleFault;
    }
  }
  CUBE_ASSIGN(kvm_regs * to_regs, vcpu->mutable_regs());
  *to_regs = regs;
  if (memcmp(&sregs, seen_sregs, sizeof sregs) != 0) {
    CUBE_ASSIGN(kvm_sregs * to_sregs, vcpu->mutable_sregs());
    *to_sregs = sregs;
  }
  return Outcome::kDone;
}

}  // namespace cube::vmm
