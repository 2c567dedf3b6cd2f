#include "vmm/assist/operand_access.h"

#include <cstring>

#include "vmm/paging.h"
#include "vmm/segments.h"

namespace cube::vmm {

__u64& OperandAccess::Gpr(uint8_t index) const {
  static constexpr __u64 kvm_regs::*kByNumber[16] = {
      &kvm_regs::rax, &kvm_regs::rcx, &kvm_regs::rdx, &kvm_regs::rbx,
      &kvm_regs::rsp, &kvm_regs::rbp, &kvm_regs::rsi, &kvm_regs::rdi,
      &kvm_regs::r8,  &kvm_regs::r9,  &kvm_regs::r10, &kvm_regs::r11,
      &kvm_regs::r12, &kvm_regs::r13, &kvm_regs::r14, &kvm_regs::r15};
  return regs_->*kByNumber[index & 15];
}

uint64_t OperandAccess::Address(const MemoryOperand& operand) const {
  uint64_t address = static_cast<uint64_t>(operand.displacement);
  if (operand.base_kind == MemoryOperand::Base::kRegister) {
    address += Gpr(operand.base);
  } else if (operand.base_kind == MemoryOperand::Base::kRip) {
    address += regs_->rip + instruction_.length;
  }
  if (operand.index) address += Gpr(*operand.index) * operand.scale;
  if (operand.address_size == 4) address &= 0xffffffff;
  if (operand.segment == MemoryOperand::Segment::kFs) address += sregs_->fs.base;
  if (operand.segment == MemoryOperand::Segment::kGs) address += sregs_->gs.base;
  return address;
}

std::optional<uint64_t> OperandAccess::Read(const Operand& operand) {
  if (operand.kind == Operand::Kind::kImmediate) return static_cast<uint64_t>(operand.immediate);
  if (operand.kind == Operand::Kind::kRegister) {
    uint64_t value = Gpr(operand.reg.index);
    if (operand.reg.high_byte) value >>= 8;
    return operand.reg.size == 8 ? value : value & ((1ull << operand.reg.size * 8) - 1);
  }
  if (operand.kind != Operand::Kind::kMemory || operand.memory.size > 8) {
    Raise(kVectorInvalidOpcode, std::nullopt);
    return std::nullopt;
  }
  uint64_t value = 0;
  if (!ReadBytes(Address(operand.memory),
                 {reinterpret_cast<uint8_t*>(&value), operand.memory.size})) {
    return std::nullopt;
  }
  return value;
}

bool OperandAccess::Write(const Operand& operand, uint64_t value) {
  if (operand.kind == Operand::Kind::kRegister) {
    __u64& reg = Gpr(operand.reg.index);
    switch (operand.reg.size) {
      case 8: reg = value; break;
      case 4: reg = value & 0xffffffff; break;
      case 2: reg = (reg & ~0xffffull) | (value & 0xffff); break;
      default: {
        int shift = operand.reg.high_byte ? 8 : 0;
        reg = (reg & ~(0xffull << shift)) | (value & 0xff) << shift;
      }
    }
    return true;
  }
  if (operand.kind != Operand::Kind::kMemory || operand.memory.size > 8) {
    return Raise(kVectorInvalidOpcode, std::nullopt);
  }
  return WriteBytes(Address(operand.memory),
                    {reinterpret_cast<const uint8_t*>(&value), operand.memory.size});
}

bool OperandAccess::ReadBytes(uint64_t address, std::span<uint8_t> out) {
  PageFault fault = {};
  return guest_.Read(address, out, &fault) || RaisePageFault(fault);
}

bool OperandAccess::WriteBytes(uint64_t address, std::span<const uint8_t> bytes) {
  PageFault fault = {};
  return guest_.Write(address, bytes, &fault) || RaisePageFault(fault);
}

bool OperandAccess::CheckWrite(uint64_t address, size_t size) {
  PageFault fault = {};
  return guest_.CheckWrite(address, size, &fault) || RaisePageFault(fault);
}

bool OperandAccess::CheckRead(uint64_t address) {
  PageFault fault = {};
  return guest_.Translate(address, false, &fault) || RaisePageFault(fault);
}

std::optional<std::span<uint8_t>> OperandAccess::Exchangeable(uint64_t address, size_t size) {
  PageFault fault = {};
  auto physical = guest_.Translate(address, true, &fault);
  auto slice = physical ? memory_.Slice(*physical, size) : std::nullopt;
  if (!physical) {
    RaisePageFault(fault);
  } else if (!slice) {
    RaisePageFault({address, kFaultPresent | kFaultWrite | kFaultReserved});
  }
  return slice;
}

void OperandAccess::SetArithmeticFlags(uint64_t flags) const {
  regs_->rflags = (regs_->rflags & ~kFlagsArithmetic) | flags;
}

bool OperandAccess::Raise(uint8_t vector, std::optional<uint32_t> error_code) {
  exception_ = Exception{vector, error_code, std::nullopt};
  return false;
}

bool OperandAccess::RaiseSoftware(uint8_t vector) {
  exception_ = Exception{vector, std::nullopt, std::nullopt, instruction_.length};
  return false;
}

bool OperandAccess::RaisePageFault(const PageFault& fault) {
  if (!IsCanonical(fault.address)) return Raise(kVectorGeneralProtection, 0);
  exception_ = Exception{kVectorPageFault, fault.error_code, fault.address};
  return false;
}

}  // namespace cube::vmm
