#ifndef CUBE_VMM_RING0_SHADOW_REPLAY_H_
#define CUBE_VMM_RING0_SHADOW_REPLAY_H_

#include <cstdint>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "vmm/kvm/kvm_vm.h"

namespace cube::vmm::ring0 {

// Makes KVM store page-table entries again, so that its shadow follows what the engine changed
// behind its back (docs/host.md): a stub of locked instructions, each of which stores what is
// there, run by KVM's emulator in ring 0 under page tables of its own, in a memory slot of its own
// that the guest is not told of. The guest may find and spoil it: what then runs is guest ring 0,
// which is the guest's anyway.
class ShadowReplay {
 public:
  // The port that the stub ends with; KVM's exit for it means that all entries were stored.
  static constexpr uint16_t kDonePort = 0xf5;

  // Adds the memory slot to the VM.
  static Result<ShadowReplay> Create(const KvmVm& vm, uint32_t slot);

  // Takes entries off `queue` (guest-physical addresses) into a new stub, as many as it holds. The
  // vCPU is to run entry() with cr3().
  void Prepare(std::vector<uint64_t>* queue);

  uint64_t cr3() const;
  static uint64_t entry();
  uint64_t replayed() const { return replayed_; }

 private:
  explicit ShadowReplay(Mapping memory) : memory_(std::move(memory)) {}
  uint64_t* Table(size_t page) const;

  Mapping memory_;
  uint64_t replayed_ = 0;
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_SHADOW_REPLAY_H_
