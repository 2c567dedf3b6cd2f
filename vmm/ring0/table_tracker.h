#ifndef CUBE_VMM_RING0_TABLE_TRACKER_H_
#define CUBE_VMM_RING0_TABLE_TRACKER_H_

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "vmm/guest_memory.h"
#include "vmm/ring0/page_flags.h"
#include "vmm/ring0/ram_slots.h"

namespace cube::vmm::ring0 {

// Knows which guest pages are page tables of user space, and which of their entries KVM's shadow
// may hold in an old form.
//
// KVM shadows the guest's tables for user mode and does not see stores that this process makes. It
// never shadows an entry that is absent, supervisor-only or not accessed; so only a store over one
// that was present, user and accessed matters. Such entries are queued, and ShadowReplay has KVM
// store them again before any vCPU of the VM enters user mode.
//
// Pages are found by induction: from every CR3 loaded, through every entry that links a table. A
// page whose last link goes is a table no longer, and all it held is queued. Used under the engine's lock.
class TableTracker {
 public:
  TableTracker(const GuestMemory& memory, PageFlags* flags) : memory_(memory), flags_(flags) {}

  // `new_root` is being loaded into a CR3 that held `old_root` (page addresses). An old root that
  // maps nothing of user space is forgotten unless another vCPU holds it.
  void SwitchRoot(uint64_t old_root, uint64_t new_root);
  // Finds all tables anew, from the roots known and those that CR3s hold now: after something else
  // may have written tables.
  void Rebuild(const std::vector<uint64_t>& roots);

  // Has all that the tables lead to made slots of KVM's; null if it has them all. Before the first root.
  void SetSlots(RamSlots* slots) { slots_ = slots; }

  // Forgets all tables, roots and entries to replay.
  void Clear();

  bool IsTable(uint64_t page) const { return flags_->Has(page, PageFlags::kTable); }

  // Accounts for the entry at guest-physical `entry`, an address divisible by 8 in a table page,
  // having changed from `old_value`, as it was the moment before.
  void Changed(uint64_t entry, uint64_t old_value, uint64_t new_value);

  // Addresses of entries that KVM must be made to store again, oldest first; may repeat.
  std::vector<uint64_t>& replay_queue() { return replay_; }

  size_t tables() const { return tables_.size(); }

 private:
  // Links to a page as a table of each level, 1 to 4; a root counts as one of level 4 per CR3.
  struct Table {
    std::array<uint32_t, 4> links = {};
    bool empty() const { return (links[0] | links[1] | links[2] | links[3]) == 0; }
  };

  static bool Links(uint64_t value, int level);
  // Whether it is a page that user mode may use.
  static bool Maps(uint64_t value, int level);
  void Mapped(uint64_t value, int level);
  void Link(uint64_t page, int level);
  void Unlink(uint64_t page, int level);
  bool MapsUserSpace(uint64_t root) const;

  const GuestMemory& memory_;
  PageFlags* flags_;
  RamSlots* slots_ = nullptr;
  std::unordered_map<uint64_t, Table> tables_;
  std::unordered_map<uint64_t, uint32_t> roots_;  // page address to CR3s that hold it
  std::vector<uint64_t> replay_;
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_TABLE_TRACKER_H_
