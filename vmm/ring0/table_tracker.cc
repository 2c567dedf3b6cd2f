#include "vmm/ring0/table_tracker.h"

#include "vmm/paging.h"

namespace cube::vmm::ring0 {
namespace {

constexpr uint64_t kShadowed = kEntryPresent | kEntryUser | kEntryAccessed;
constexpr size_t kEntries = 512;
constexpr size_t kUserRootEntries = 256;

uint64_t ReadEntry(const std::span<uint8_t>& table, size_t index) {
  return __atomic_load_n(reinterpret_cast<const uint64_t*>(table.data()) + index,
                         __ATOMIC_RELAXED);
}

}  // namespace

// Whether an entry of a table of `level` leads to a table that user mode may walk.
bool TableTracker::Links(uint64_t value, int level) {
  constexpr uint64_t kWanted = kEntryPresent | kEntryUser;
  return level > 1 && (value & kWanted) == kWanted && (level == 4 || (value & kEntryLarge) == 0);
}

bool TableTracker::Maps(uint64_t value, int level) {
  constexpr uint64_t kWanted = kEntryPresent | kEntryUser;
  return (value & kWanted) == kWanted &&
         (level == 1 || (level < 4 && (value & kEntryLarge) != 0));
}

void TableTracker::Mapped(uint64_t value, int level) {
  uint64_t size = uint64_t{1} << PageBits(level - 1);
  slots_->Ensure(value & kEntryAddress & ~(size - 1), size);
}

void TableTracker::Link(uint64_t page, int level) {
  auto bytes = memory_.Slice(page, kPageSize);
  if (!bytes) return;  // the walk will fault there
  Table& table = tables_[page];
  if (table.empty()) flags_->Set(page, PageFlags::kTable);
  // Levels below are entered once per page and level, so a table that maps itself ends here.
  bool lazy = slots_ != nullptr && !slots_->complete();
  if (lazy) slots_->Ensure(page);
  if (++table.links[static_cast<size_t>(level - 1)] != 1 || (level == 1 && !lazy)) return;
  for (size_t i = 0; i < kEntries; ++i) {
    uint64_t value = ReadEntry(*bytes, i);
    if (Links(value, level)) Link(value & kEntryAddress, level - 1);
    if (lazy && Maps(value, level)) Mapped(value, level);
  }
}

void TableTracker::Unlink(uint64_t page, int level) {
  auto found = tables_.find(page);
  if (found == tables_.end()) return;
  uint32_t& links = found->second.links[static_cast<size_t>(level - 1)];
  if (links == 0 || --links != 0) return;
  // Once it is no table its entries may change unseen, and KVM would find the old ones in its shadow
  // when the page becomes a table again.
  auto bytes = memory_.Slice(page, kPageSize);
  for (size_t i = 0; bytes && i < kEntries; ++i) {
    uint64_t value = ReadEntry(*bytes, i);
    if ((value & kShadowed) == kShadowed) replay_.push_back(page + i * sizeof value);
    if (Links(value, level)) Unlink(value & kEntryAddress, level - 1);
  }
  if (level > 1) {
    found = tables_.find(page);
    if (found == tables_.end()) return;
  }
  if (!found->second.empty()) return;
  tables_.erase(found);
  flags_->Clear(page, PageFlags::kTable);
}

bool TableTracker::MapsUserSpace(uint64_t root) const {
  auto bytes = memory_.Slice(root, kPageSize);
  for (size_t i = 0; bytes && i < kUserRootEntries; ++i) {
    if (Links(ReadEntry(*bytes, i), 4)) return true;
  }
  return false;
}

void TableTracker::SwitchRoot(uint64_t old_root, uint64_t new_root) {
  old_root &= kEntryAddress;
  new_root &= kEntryAddress;
  // A root that was loaded before the tracker knew of it holds no count to give back.
  auto held = roots_.find(old_root);
  bool counted = held != roots_.end() && held->second > 0;
  if (roots_[new_root]++ == 0) {
    auto table = tables_.find(new_root);
    if (table == tables_.end() || table->second.links[3] == 0) Link(new_root, 4);
  }
  auto old = roots_.find(old_root);
  if (old == roots_.end()) return;
  if (counted) --old->second;
  // A root that still maps something stays: its process will run again.
  if (old->second == 0 && !MapsUserSpace(old_root)) {
    roots_.erase(old);
    Unlink(old_root, 4);
  }
}

void TableTracker::Clear() {
  for (const auto& [page, table] : tables_) flags_->Clear(page, PageFlags::kTable);
  tables_.clear();
  roots_.clear();
  replay_.clear();
}

void TableTracker::Rebuild(const std::vector<uint64_t>& roots) {
  for (const auto& [page, table] : tables_) flags_->Clear(page, PageFlags::kTable);
  tables_.clear();
  // Roots that no CR3 holds belong to processes that will run again, and KVM may shadow them.
  std::unordered_map<uint64_t, uint32_t> old;
  old.swap(roots_);
  for (uint64_t root : roots) ++roots_[root & kEntryAddress];
  for (const auto& [root, count] : old) {
    if (MapsUserSpace(root)) roots_.emplace(root, 0);
  }
  for (const auto& [root, count] : roots_) Link(root, 4);
}

void TableTracker::Changed(uint64_t entry, uint64_t old_value, uint64_t new_value) {
  if (old_value == new_value) return;
  if ((old_value & kShadowed) == kShadowed) replay_.push_back(entry);
  uint64_t page = entry & ~(kPageSize - 1);
  auto found = tables_.find(page);
  if (found == tables_.end()) return;
  Table table = found->second;  // a copy: linking may move what it refers to
  for (int level = 1; slots_ != nullptr && level < 4; ++level) {
    if (table.links[static_cast<size_t>(level - 1)] != 0 && Maps(new_value, level)) {
      Mapped(new_value, level);
    }
  }
  for (int level = 2; level <= 4; ++level) {
    if (table.links[static_cast<size_t>(level - 1)] == 0) continue;
    bool linked = Links(old_value, level), links = Links(new_value, level);
    uint64_t old_child = old_value & kEntryAddress, child = new_value & kEntryAddress;
    if (linked && links && old_child == child) continue;
    if (links) Link(child, level - 1);
    if (linked) Unlink(old_child, level - 1);
  }
  // The last entry of a root that no CR3 holds.
  auto root = roots_.find(page);
  if (root != roots_.end() && root->second == 0 && Links(old_value, 4) && !MapsUserSpace(page)) {
    roots_.erase(root);
    Unlink(page, 4);
  }
}

}  // namespace cube::vmm::ring0
