#ifndef CUBE_VMM_RING0_INTERPRETER_OBSERVER_H_
#define CUBE_VMM_RING0_INTERPRETER_OBSERVER_H_

#include <cstdint>

#include "vmm/kvm/kvm_api.h"
#include "vmm/ring0/cpu.h"

namespace cube::vmm::ring0 {

// Runs the interpreter in place of Interpret(): a test that holds what it does against something
// else (lockstep.h). Called on vCPU threads, under the engine's lock.
class InterpreterObserver {
 public:
  virtual ~InterpreterObserver() = default;
  // As ring0::Interpret(). `segments` is the vCPU's as the guest set it, descriptor tables
  // included.
  virtual Stop Interpret(Cpu& cpu, const kvm_sregs& segments) = 0;
  // How many instructions of ring 0 the guest is to run, if it does not halt, between arming its
  // timer and the interrupt of it. Who makes the guest very slow needs it: by the host's clock
  // the timer is then always due, and to serve it all the guest does. 0: the host's clock decides.
  virtual uint64_t InstructionsPerTick() const { return 0; }
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_INTERPRETER_OBSERVER_H_
