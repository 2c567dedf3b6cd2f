#ifndef CUBE_VMM_RING0_RAM_SLOTS_H_
#define CUBE_VMM_RING0_RAM_SLOTS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm_vm.h"
#include "vmm/kvm/vcpu_state.h"

namespace cube::vmm::ring0 {

// The memory slots of a restored guest's RAM, piece by piece. A KVM that shadows page tables keeps
// 2.5 KiB for each MiB of a slot, used or not, in each VM: more than all else that an idle clone
// takes. Where the engine runs ring 0, KVM itself comes to little of the RAM: what user mode can
// reach, the tables that lead there, and the places it pushes frames to. A piece becomes a slot
// before KVM can come to it; should it come to one unforeseen, the engine sees a strange exit and
// has it made then.
//
// Any thread; what is made stays.
class RamSlots {
 public:
  // Each new slot costs a grace period of the host's kernel, some tens of microseconds to
  // milliseconds: pieces are of 32 MiB, or larger, some sixteen of them.
  static constexpr uint64_t kLeastPiece = 32 << 20;
  // None of `memory`'s RAM is in a slot of `vm` yet; both outlive this. `first_slot` and as many
  // above as there are pieces are free. `least_piece` is a multiple of the page size.
  RamSlots(const KvmVm& vm, const GuestMemory& memory, uint32_t first_slot,
           uint64_t least_piece = kLeastPiece);

  // Whether all of the RAM is in slots.
  bool complete() const { return missing_.load(std::memory_order_relaxed) == 0; }
  // Whether `physical` is RAM that KVM does not have.
  bool IsMissing(uint64_t physical) const;

  // Makes the piece at guest-physical `physical` a slot; what is not RAM is passed over. True if it
  // was missing.
  bool Ensure(uint64_t physical);
  void Ensure(uint64_t physical, uint64_t size);
  void EnsureAll();
  // All that a walk from `root` (a CR3) to `linear` comes to, and the page itself if it is mapped.
  // True if something was missing.
  bool EnsureMapped(uint64_t root, uint64_t linear);
  // The same for all that user mode can reach.
  void EnsureUserSpace(uint64_t root);
  // The same for the stack pointer that an interrupt of user mode takes from the 64-bit TSS at
  // `tss`.
  void EnsureInterruptStack(uint64_t root, uint64_t tss);
  // The same for a frame pushed at the stack pointer `rsp`.
  void EnsureFrame(uint64_t root, uint64_t rsp);
  // The page that KVM is to write to, if `index` is one of KVM's own MSRs with an address in
  // `value`.
  void EnsureForMsr(uint32_t index, uint64_t value);
  // All that KVM will come to as it goes on from `state`, as far as it can be told.
  void EnsureFor(const VcpuState& state);

  // The pieces that are slots, by number, and how to have the same made in another VM.
  std::vector<uint32_t> pieces() const;
  void EnsurePieces(std::span<const uint32_t> pieces);

  // The first refusal of KVM's, if there was any.
  Status status() const;

 private:
  struct Piece {
    uint64_t start;
    std::span<uint8_t> host;
  };

  // The number of pieces if it is not RAM.
  size_t IndexOf(uint64_t physical) const;
  bool Make(size_t index);
  // Makes what is missing on the way from `root` to `linear`, counting it in `made`; where it
  // leads, or nothing if it is not mapped.
  std::optional<uint64_t> Walk(uint64_t root, uint64_t linear, int* made);
  void EnsureTable(uint64_t page, int level, int* budget);
  uint64_t Entry(uint64_t table, uint64_t index) const;

  const KvmVm& vm_;
  const GuestMemory& memory_;
  uint32_t first_slot_;
  uint64_t piece_size_;
  uint64_t low_end_ = 0;
  size_t low_pieces_ = 0;
  std::vector<Piece> pieces_;
  std::unique_ptr<std::atomic<bool>[]> made_;
  std::atomic<size_t> missing_;
  mutable std::mutex mutex_;
  Status status_ = OkStatus();
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_RAM_SLOTS_H_
