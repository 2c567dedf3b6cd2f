#ifndef CUBE_VMM_ASSIST_OPERAND_ACCESS_H_
#define CUBE_VMM_ASSIST_OPERAND_ACCESS_H_

#include <cstdint>
#include <optional>
#include <span>

#include "vmm/assist/exception_delivery.h"
#include "vmm/assist/guest_virtual.h"
#include "vmm/assist/instruction.h"
#include "vmm/kvm/kvm_api.h"

namespace cube::vmm {

// The registers and memory that one instruction of ring 0 names. An access that the processor would
// refuse returns nothing and leaves the exception it would raise in `exception()`.
class OperandAccess {
 public:
  OperandAccess(const GuestMemory& memory, const Instruction& instruction, kvm_regs* regs,
                kvm_sregs* sregs)
      : memory_(memory),
        instruction_(instruction),
        regs_(regs),
        sregs_(sregs),
        guest_(memory, *sregs, regs->rflags) {}

  // A whole register by its number.
  __u64& Gpr(uint8_t index) const;
  // The effective linear address of a memory operand.
  uint64_t Address(const MemoryOperand& operand) const;

  // A register or memory operand of up to 8 bytes, zero-extended.
  std::optional<uint64_t> Read(const Operand& operand);
  bool Write(const Operand& operand, uint64_t value);
  bool ReadBytes(uint64_t address, std::span<uint8_t> out);
  bool WriteBytes(uint64_t address, std::span<const uint8_t> bytes);
  // Raise what a write of `size` bytes would raise, or a read of one, without doing it.
  bool CheckWrite(uint64_t address, size_t size);
  bool CheckRead(uint64_t address);
  // The host's view of `size` bytes within a page that the instruction reads and writes.
  std::optional<std::span<uint8_t>> Exchangeable(uint64_t address, size_t size);

  // Sets the arithmetic flags to `flags` and clears the others of them.
  void SetArithmeticFlags(uint64_t flags) const;
  bool Raise(uint8_t vector, std::optional<uint32_t> error_code);
  // INT3 and INT n.
  bool RaiseSoftware(uint8_t vector);

  kvm_regs& regs() const { return *regs_; }
  kvm_sregs& sregs() const { return *sregs_; }
  const Instruction& instruction() const { return instruction_; }
  const std::optional<Exception>& exception() const { return exception_; }

 private:
  bool RaisePageFault(const PageFault& fault);

  const GuestMemory& memory_;
  const Instruction& instruction_;
  kvm_regs* regs_;
  kvm_sregs* sregs_;
  GuestVirtual guest_;
  std::optional<Exception> exception_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_OPERAND_ACCESS_H_
