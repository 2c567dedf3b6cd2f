#ifndef CUBE_VMM_RING0_KVM_STUB_H_
#define CUBE_VMM_RING0_KVM_STUB_H_

#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm_vm.h"
#include "vmm/memory_map.h"

namespace cube::vmm::ring0 {

// Memory of all stubs: a slot of its own, of which the guest is not told. It may find and spoil it;
// what then runs is guest ring 0, which is the guest's anyway, and nothing is read back from it.
class StubMemory {
 public:
  static Result<StubMemory> Create(const KvmVm& vm, uint32_t slot);

  std::span<uint8_t> Of(uint32_t vcpu) const;
  static uint64_t PhysicalOf(uint32_t vcpu) { return kRing0StubAddress + vcpu * kRing0StubSize; }

 private:
  explicit StubMemory(Mapping memory) : memory_(std::move(memory)) {}

  Mapping memory_;
};

// What one vCPU finds in ring 0 while KVM runs it: an IDT whose every gate leads to an OUT, so that
// whatever interrupts user mode leaves to user space and names its vector; and code that makes KVM
// store page-table entries again. Both are mapped through one entry of the guest's own root table,
// for ring 0 only, in the part of the address space that Linux leaves to hypervisors
// (Documentation/x86/x86_64/mm.rst), and only while KVM runs.
class KvmStub {
 public:
  // The port of the gates, that of a replay that does not go on by itself, and that of the place
  // where ring 0 waits for an interrupt.
  static constexpr uint16_t kVectorPort = 0xf5;
  static constexpr uint16_t kReplayPort = 0xf6;
  static constexpr uint16_t kPollPort = 0xf7;

  // Virtual memory that a stub takes.
  static constexpr uint64_t kRing0StubSpan = 4 * kMiB;

  // `vcpu` is below kMaxCpus; `memory` is StubMemory's for it.
  KvmStub(uint32_t vcpu, std::span<uint8_t> memory);

  // Maps the stub under the root table `cr3`, its gates leading to the guest's ring-0 code segment
  // `code`; false if the root is not memory. Until Unmap(), which puts back what stood there.
  bool Map(const GuestMemory& guest, uint64_t cr3, uint16_t code);
  void Unmap();
  bool mapped() const { return root_entry_ != nullptr; }

  // The entry of the interrupt stack table that NMIs take, as the guest's gate names it: they may come
  // where the stack is not ring 0's.
  void SetNmiStack(uint8_t entry);

  // Code that leaves with kPollPort unless an interrupt comes first.
  uint64_t poll_entry() const;

  uint64_t idt_base() const;
  static constexpr uint16_t kIdtLimit = 256 * 16 - 1;
  // Whether that is an address of the stub's.
  bool Contains(uint64_t address) const { return mapped() && address - base_ < kRing0StubSpan; }
  // The vector whose gate led to an exit at `rip`, if one did.
  std::optional<uint8_t> VectorAt(uint64_t rip) const;

  // How a replay ends: with kReplayPort, or, once nothing is left in the queue, at an address of
  // the guest's ring 0, or with an IRET to what the frame says.
  struct ReturnFrame {
    uint64_t rip, cs, rflags, rsp, ss;
  };
  using ReplayEnd = std::variant<std::monostate, uint64_t, ReturnFrame>;
  // Takes entries off `queue` (guest-physical addresses) into code, as many as fit, that has KVM
  // store each as it is: a locked OR of nothing, which its shadow follows.
  void PrepareReplay(std::vector<uint64_t>* queue, const ReplayEnd& end);
  uint64_t replay_entry() const;
  // Whether `rip` is in that code; and gives back to `queue` what it was to store.
  bool InReplay(uint64_t rip) const;
  void UndoReplay(std::vector<uint64_t>* queue) const;
  // What RSP must be there if the replay ends with an IRET.
  uint64_t replay_frame() const;
  uint64_t replayed() const { return replayed_; }

 private:
  uint64_t* Table(size_t page) const;
  void MakeGates(uint16_t code);

  uint64_t root_index_;
  uint64_t base_;  // virtual
  uint64_t physical_;
  std::span<uint8_t> memory_;
  uint16_t code_ = 0;
  uint64_t* root_entry_ = nullptr;  // null if not mapped
  uint64_t covered_ = 0;            // what it held
  uint64_t replayed_ = 0;
  std::vector<uint64_t> last_replay_;
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_KVM_STUB_H_
