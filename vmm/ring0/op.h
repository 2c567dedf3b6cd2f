#ifndef CUBE_VMM_RING0_OP_H_
#define CUBE_VMM_RING0_OP_H_

#include <cstdint>

#include "vmm/ring0/cpu.h"

namespace cube::vmm::ring0 {

// Carries out one operation and returns the next, or null with Cpu::stop and Cpu::rip set. An
// operation that stops has changed nothing, so that it can be begun again.
using Handler = const Op* (*)(Cpu& cpu, const Op* op);

// What handlers are counted from: Op holds a distance, which fits into 32 bits in any program.
const Op* EndOfBlock(Cpu& cpu, const Op* op);

// One decoded instruction. Which fields mean something is the handler's business.
struct Op {
  int64_t immediate = 0;
  int32_t displacement = 0;  // from the code page's start if `base` is kCodePageRegister
  int32_t handler = 0;
  uint16_t at = 0;  // offset of the instruction in its page
  uint8_t length = 0;
  // An index of Cpu::r; for byte operands a byte offset into it, so that AH is 1 and BL is 24.
  uint8_t reg = 0;
  uint8_t base = kZeroRegister;  // base of the address, or the second register operand
  uint8_t index = kZeroRegister;
  uint8_t scale = 0;  // a shift
  uint8_t segment = kFlatSegment;

  void set_handler(Handler function) {
    handler = static_cast<int32_t>(reinterpret_cast<intptr_t>(function) -
                                   reinterpret_cast<intptr_t>(&EndOfBlock));
  }
  const Op* Run(Cpu& cpu) const {
    return reinterpret_cast<Handler>(reinterpret_cast<intptr_t>(&EndOfBlock) + handler)(cpu, this);
  }
};
static_assert(sizeof(Op) == 24);

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_OP_H_
