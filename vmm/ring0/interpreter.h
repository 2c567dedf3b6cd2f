#ifndef CUBE_VMM_RING0_INTERPRETER_H_
#define CUBE_VMM_RING0_INTERPRETER_H_

#include "vmm/ring0/cpu.h"

namespace cube::vmm::ring0 {

// Runs the guest's ring 0 from Cpu::rip until Cpu::stop says why it stopped; never returns kNone.
// Cpu::budget bounds the jumps it makes, and the length of a block what lies between them.
Stop Interpret(Cpu& cpu);

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_INTERPRETER_H_
