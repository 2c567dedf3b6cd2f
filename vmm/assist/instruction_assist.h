#ifndef CUBE_VMM_ASSIST_INSTRUCTION_ASSIST_H_
#define CUBE_VMM_ASSIST_INSTRUCTION_ASSIST_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/assist/extended_state.h"
#include "vmm/assist/instruction.h"
#include "vmm/assist/operand_access.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm_vcpu.h"

namespace cube::vmm {

// Carries out, one at a time, the ring-0 instructions that KVM's emulator gives up on
// (KVM_EXIT_INTERNAL_ERROR, suberror 1). Belongs to one vCPU's thread. docs/host.md lists what it
// knows and the test for each.
class InstructionAssist {
 public:
  InstructionAssist(const GuestMemory& memory, const XsaveLayout& layout)
      : memory_(memory), extended_(layout) {}

  enum class Outcome {
    kDone,     // registers are as after the instruction, or at the handler of what it raised
    kInvalid,  // the processor has no such instruction: KVM has #UD pending, run on
    kUnknown,  // an instruction that the processor has and this layer does not
    kTripleFault,  // it raised an exception that the guest has no way to take
  };
  // Looks at the instruction at RIP of `vcpu`, which has just left with the internal error.
  Result<Outcome> CarryOut(KvmVcpu* vcpu);

  // How often each mnemonic was carried out.
  const std::map<std::string, uint64_t>& counts() const { return counts_; }
  InstructionDecoder& decoder() { return decoder_; }

 private:
  // True: carried out. False: `access` holds the exception it raises.
  Result<bool> Execute(KvmVcpu* vcpu, OperandAccess* access, bool* known);

  const GuestMemory& memory_;
  InstructionDecoder decoder_;
  ExtendedState extended_;
  std::map<std::string, uint64_t> counts_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_INSTRUCTION_ASSIST_H_
