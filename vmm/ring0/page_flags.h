#ifndef CUBE_VMM_RING0_PAGE_FLAGS_H_
#define CUBE_VMM_RING0_PAGE_FLAGS_H_

#include <array>
#include <cstdint>

#include "base/mapping.h"
#include "base/result.h"
#include "vmm/memory_map.h"

namespace cube::vmm::ring0 {

// A byte for each page of guest-physical memory, which costs host memory only where one is set.
// Stores to a page with any flag leave the soft TLB's fast path. Used under the engine's lock.
class PageFlags {
 public:
  static constexpr uint8_t kCode = 1;   // decoded instructions of it are cached
  static constexpr uint8_t kTable = 2;  // it is a page table

  // For guest-physical addresses below `end`.
  static Result<PageFlags> Create(uint64_t end);

  bool Has(uint64_t address, uint8_t flag) const { return (Get(address) & flag) != 0; }
  uint8_t Get(uint64_t address) const {
    uint64_t page = address / kPageSize;
    return page < bytes_.size() ? bytes_.data()[page] : 0;
  }
  void Set(uint64_t address, uint8_t flag) {
    uint64_t page = address / kPageSize;
    if (page >= bytes_.size()) return;
    if (bytes_.data()[page] == 0) marked_[generation_++ % kRecent] = page * kPageSize;
    bytes_.data()[page] |= flag;
  }
  void Clear(uint64_t address, uint8_t flag) {
    uint64_t page = address / kPageSize;
    if (page < bytes_.size()) bytes_.data()[page] &= static_cast<uint8_t>(~flag);
  }

  // Changes when a page that had none gets a flag: soft TLBs may then hold a right to write it that
  // they must drop (SoftMmu::Refresh).
  uint64_t generation() const { return generation_; }
  // The page that ended `generation`, one of the last kRecent.
  static constexpr uint64_t kRecent = 16;
  uint64_t Marked(uint64_t generation) const { return marked_[generation % kRecent]; }

 private:
  explicit PageFlags(Mapping bytes) : bytes_(std::move(bytes)) {}

  Mapping bytes_;
  uint64_t generation_ = 0;
  std::array<uint64_t, kRecent> marked_ = {};
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_PAGE_FLAGS_H_
