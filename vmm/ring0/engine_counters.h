#ifndef CUBE_VMM_RING0_ENGINE_COUNTERS_H_
#define CUBE_VMM_RING0_ENGINE_COUNTERS_H_

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>

#include "vmm/assist/instruction.h"

namespace cube::vmm::ring0 {

// What one vCPU's engine did, and where its time went. Belongs to the vCPU's thread.
class EngineCounters {
 public:
  uint64_t takeovers = 0, syscalls = 0, faults = 0, interrupts = 0, steps = 0, polls = 0,
           injections = 0, user_entries = 0, replays = 0, assists = 0, msrs = 0, exceptions = 0,
           resynchronisations = 0, late_slots = 0;
  // In ticks of the host's TSC: from BeforeRun() to AfterRun(), which is KVM_RUN and user mode in
  // it; in the interpreter's loop; waiting for the engine's lock.
  uint64_t kvm_ticks = 0, interpreter_ticks = 0, lock_ticks = 0;

  // An instruction was handed to KVM: `code` is what stands at RIP.
  void CountHandOff(std::span<const uint8_t> code);
  void CountMsrHandOff(bool write, uint32_t index) { ++msr_hand_offs_[{write, index}]; }

  // All of it by name; times in microseconds, for a TSC of `khz`.
  std::map<std::string, uint64_t> ByName(uint64_t instructions, uint64_t khz,
                                         InstructionDecoder* decoder) const;

 private:
  // By the first bytes of the instruction, all of which are kept to name it.
  struct HandOff {
    std::array<uint8_t, 15> bytes = {};
    uint64_t count = 0;
  };
  std::map<uint32_t, HandOff> hand_offs_;
  std::map<std::pair<bool, uint32_t>, uint64_t> msr_hand_offs_;
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_ENGINE_COUNTERS_H_
