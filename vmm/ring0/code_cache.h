#ifndef CUBE_VMM_RING0_CODE_CACHE_H_
#define CUBE_VMM_RING0_CODE_CACHE_H_

#include <cstdint>
#include <span>

#include "base/mapping.h"
#include "base/result.h"
#include "vmm/ring0/op.h"
#include "vmm/ring0/page_flags.h"

namespace cube::vmm::ring0 {

// Decoded blocks by the guest-physical address they begin at. A block lies in one page; a store to
// the page drops its blocks. All of it is one mapping of fixed size, so that the clones of a process
// share what it has decoded until they decode more. When it is full it begins anew.
//
// Blocks keep their place until Insert() begins anew: one that was dropped while it runs may be run
// to its end. Used under the engine's lock.
class CodeCache {
 public:
  // Operations of a block at most, the end included.
  static constexpr size_t kMaxBlock = 64;

  static Result<CodeCache> Create(size_t size = kDefaultSize);
  static constexpr size_t kDefaultSize = 4 << 20;

  // Where pages with blocks are marked; before the first Insert(). What is there already, of an
  // earlier user, is inherited.
  void MarkIn(PageFlags* flags) {
    flags_ = flags;
    inherited_ = used_;
  }

  // The block that begins at `physical`, or null.
  const Op* Find(uint64_t physical) const;
  // Keeps a copy of `ops`, at most kMaxBlock; no other block may be in use. Returns the copy.
  const Op* Insert(uint64_t physical, std::span<const Op> ops);
  // Drops the blocks of the page of `physical`.
  void DropPage(uint64_t physical);
  void DropAll();
  // Gives back memory that is this process's own: everything, unless what was inherited, which others
  // share, is all but a little of it.
  void Trim();

  // Blocks lie at multiples of 8 bytes from here.
  const uint8_t* base() const { return memory_.data(); }

  // Changes when a block was dropped: what remembers blocks must forget them.
  uint64_t generation() const { return generation_; }
  uint64_t blocks() const { return blocks_; }
  uint64_t dropped() const { return dropped_; }

 private:
  static constexpr size_t kBuckets = 1 << 14;
  static constexpr size_t kPageBuckets = 1 << 12;
  static constexpr uint32_t kNone = 0;
  // Behind the buckets, in units of 8 bytes.
  static constexpr uint32_t kFirst = (kBuckets + kPageBuckets) * sizeof(uint32_t) / 8;

  // In the mapping: places are counted in units of 8 bytes from its start.
  struct Block {
    uint64_t physical;
    uint32_t next;          // of the same bucket
    uint32_t next_of_page;  // of the same page bucket
  };
  static_assert(sizeof(Block) == 16);

  explicit CodeCache(Mapping memory);

  Block* At(uint32_t place) const {
    return reinterpret_cast<Block*>(memory_.data() + static_cast<size_t>(place) * 8);
  }
  uint32_t* Buckets() const { return reinterpret_cast<uint32_t*>(memory_.data()); }
  uint32_t* PageBuckets() const { return Buckets() + kBuckets; }
  static size_t BucketOf(uint64_t physical) {
    return (physical * 0x9e3779b97f4a7c15ull >> 40) & (kBuckets - 1);
  }
  static size_t PageBucketOf(uint64_t physical) {
    return (physical / kPageSize * 0x9e3779b97f4a7c15ull >> 40) & (kPageBuckets - 1);
  }

  PageFlags* flags_ = nullptr;
  Mapping memory_;
  uint32_t used_;  // the first free place
  uint32_t inherited_ = kFirst;
  uint64_t generation_ = 0;
  uint64_t blocks_ = 0;
  uint64_t dropped_ = 0;
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_CODE_CACHE_H_
