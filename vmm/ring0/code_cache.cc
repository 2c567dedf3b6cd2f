#include "vmm/ring0/code_cache.h"

#include <sys/mman.h>

#include <cstring>

namespace cube::vmm::ring0 {

Result<CodeCache> CodeCache::Create(size_t size) {
  CUBE_ASSIGN(Mapping memory,
              Mapping::Map(size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, "the code cache"));
  return CodeCache(std::move(memory));
}

CodeCache::CodeCache(Mapping memory)
    : memory_(std::move(memory)),
      used_(kFirst) {}

const Op* CodeCache::Find(uint64_t physical) const {
  for (uint32_t place = Buckets()[BucketOf(physical)]; place != kNone; place = At(place)->next) {
    if (At(place)->physical == physical) return reinterpret_cast<const Op*>(At(place) + 1);
  }
  return nullptr;
}

const Op* CodeCache::Insert(uint64_t physical, std::span<const Op> ops) {
  size_t size = sizeof(Block) + ops.size_bytes();
  if (static_cast<size_t>(used_) * 8 + size > memory_.size()) DropAll();
  uint32_t place = used_;
  used_ += static_cast<uint32_t>(size / 8);
  Block* block = At(place);
  uint32_t& bucket = Buckets()[BucketOf(physical)];
  uint32_t& page_bucket = PageBuckets()[PageBucketOf(physical)];
  *block = {physical, bucket, page_bucket};
  bucket = page_bucket = place;
  memcpy(static_cast<void*>(block + 1), ops.data(), ops.size_bytes());
  flags_->Set(physical, PageFlags::kCode);
  ++blocks_;
  return reinterpret_cast<const Op*>(block + 1);
}

void CodeCache::DropPage(uint64_t physical) {
  if (!flags_->Has(physical, PageFlags::kCode)) return;
  flags_->Clear(physical, PageFlags::kCode);
  ++generation_;
  uint64_t page = physical / kPageSize;
  for (uint32_t* link = &PageBuckets()[PageBucketOf(physical)]; *link != kNone;) {
    Block* block = At(*link);
    if (block->physical / kPageSize != page) {
      link = &block->next_of_page;
      continue;
    }
    uint32_t place = *link;
    *link = block->next_of_page;
    for (uint32_t* other = &Buckets()[BucketOf(block->physical)]; *other != kNone;
         other = &At(*other)->next) {
      if (*other != place) continue;
      *other = block->next;
      break;
    }
    ++dropped_;
  }
}

void CodeCache::DropAll() {
  ++generation_;
  for (size_t i = 0; i < kPageBuckets; ++i) {
    for (uint32_t place = PageBuckets()[i]; place != kNone; place = At(place)->next_of_page) {
      flags_->Clear(At(place)->physical, PageFlags::kCode);
      ++dropped_;
    }
  }
  // Gives the memory back as well; it reads as zeros again, which is kNone in every bucket.
  madvise(memory_.data(), memory_.size(), MADV_DONTNEED);
  used_ = inherited_ = kFirst;
}

void CodeCache::Trim() {
  constexpr uint32_t kLittle = 64 * 1024 / 8;
  if (inherited_ == kFirst || used_ - inherited_ > kLittle) DropAll();
}

}  // namespace cube::vmm::ring0
