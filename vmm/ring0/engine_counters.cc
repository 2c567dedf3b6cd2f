#include "vmm/ring0/engine_counters.h"

#include <algorithm>
#include <cstring>

#include "base/result.h"

namespace cube::vmm::ring0 {

void EngineCounters::CountHandOff(std::span<const uint8_t> code) {
  HandOff found;
  std::copy_n(code.begin(), std::min(code.size(), found.bytes.size()), found.bytes.begin());
  uint32_t key;
  memcpy(&key, found.bytes.data(), sizeof key);
  ++hand_offs_.try_emplace(key, found).first->second.count;
}

std::map<std::string, uint64_t> EngineCounters::ByName(uint64_t instructions, uint64_t khz,
                                                       InstructionDecoder* decoder) const {
  auto microseconds = [khz](uint64_t ticks) { return khz < 1000 ? 0 : ticks / (khz / 1000); };
  std::map<std::string, uint64_t> counts = {
      {"ring0 instructions", instructions},
      {"ring0 takeovers", takeovers},
      {"ring0 syscalls", syscalls},
      {"ring0 faults", faults},
      {"ring0 interrupts", interrupts},
      {"ring0 steps", steps},
      {"ring0 polls", polls},
      {"ring0 injections", injections},
      {"ring0 user entries", user_entries},
      {"ring0 replays", replays},
      {"ring0 assists", assists},
      {"ring0 msrs", msrs},
      {"ring0 exceptions", exceptions},
      {"ring0 resynchronisations", resynchronisations},
      {"ring0 late memory slots", late_slots},
      {"ring0 us in KVM_RUN", microseconds(kvm_ticks)},
      {"ring0 us interpreting", microseconds(interpreter_ticks)},
      {"ring0 us waiting for the lock", microseconds(lock_ticks)},
  };
  for (const auto& [key, hand_off] : hand_offs_) {
    auto instruction = decoder->Decode(hand_off.bytes);
    std::string name = instruction ? instruction->mnemonic : Format("bytes %08x", key);
    counts["ring0 handed to KVM: " + name] += hand_off.count;
  }
  for (const auto& [msr, count] : msr_hand_offs_) {
    counts[Format("ring0 handed to KVM: %s %#x", msr.first ? "wrmsr" : "rdmsr", msr.second)] =
        count;
  }
  return counts;
}

}  // namespace cube::vmm::ring0
