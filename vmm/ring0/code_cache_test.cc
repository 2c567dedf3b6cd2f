#include "vmm/ring0/code_cache.h"

#include <gtest/gtest.h>

#include <vector>

#include "vmm/memory_map.h"

namespace cube::vmm::ring0 {
namespace {

class CodeCacheTest : public testing::Test {
 protected:
  const Op* Insert(CodeCache& cache, uint64_t physical, int64_t mark, size_t count = 3) {
    std::vector<Op> ops(count);
    for (Op& op : ops) op.immediate = mark;
    return cache.Insert(physical, ops);
  }
  CodeCache MakeCache(size_t size) {
    CodeCache cache = CodeCache::Create(size).value();
    cache.MarkIn(&flags_);
    return cache;
  }

  PageFlags flags_ = PageFlags::Create(64 * kMiB).value();
  CodeCache cache_ = MakeCache(CodeCache::kDefaultSize);
};

TEST_F(CodeCacheTest, FindsWhatWasInserted) {
  EXPECT_EQ(cache_.Find(0x1000), nullptr);
  const Op* kept = Insert(cache_, 0x1000, 7);
  EXPECT_EQ(cache_.Find(0x1000), kept);
  EXPECT_EQ(kept[2].immediate, 7);
  EXPECT_EQ(cache_.Find(0x1001), nullptr);
  EXPECT_TRUE(flags_.Has(0x1fff, PageFlags::kCode));
  EXPECT_EQ(cache_.blocks(), 1u);
}

TEST_F(CodeCacheTest, DropPageDropsOnlyThatPage) {
  // Many pages, so that they share buckets.
  for (uint64_t page = 0; page < 10000; ++page) {
    Insert(cache_, page * kPageSize + 8, static_cast<int64_t>(page), 1);
    Insert(cache_, page * kPageSize + 99, static_cast<int64_t>(page), 1);
  }
  uint64_t generation = cache_.generation();
  for (uint64_t page = 0; page < 10000; page += 3) cache_.DropPage(page * kPageSize + 500);
  EXPECT_GT(cache_.generation(), generation);
  for (uint64_t page = 0; page < 10000; ++page) {
    const Op* kept = cache_.Find(page * kPageSize + 99);
    ASSERT_EQ(kept == nullptr, page % 3 == 0) << page;
    ASSERT_EQ(cache_.Find(page * kPageSize + 8) == nullptr, page % 3 == 0) << page;
    ASSERT_EQ(flags_.Has(page * kPageSize, PageFlags::kCode), page % 3 != 0);
    if (kept != nullptr) {
      ASSERT_EQ(kept->immediate, static_cast<int64_t>(page));
    }
  }
  EXPECT_EQ(cache_.dropped(), 2u * 3334);
}

TEST_F(CodeCacheTest, DropOfAPageWithoutCodeChangesNothing) {
  Insert(cache_, 0x1000, 1);
  uint64_t generation = cache_.generation();
  cache_.DropPage(0x2000);
  EXPECT_EQ(cache_.generation(), generation);
}

TEST_F(CodeCacheTest, BeginsAnewWhenFull) {
  CodeCache small = MakeCache(256 << 10);
  uint64_t generation = small.generation();
  uint64_t at = 0;
  while (small.generation() == generation) {
    const Op* kept = Insert(small, at, static_cast<int64_t>(at), CodeCache::kMaxBlock);
    ASSERT_EQ(small.Find(at), kept);
    at += 64;
    ASSERT_LT(at, 32 * kMiB);
  }
  // Only the last one is there, and only its page is marked.
  EXPECT_EQ(small.Find(at - 64)->immediate, static_cast<int64_t>(at - 64));
  EXPECT_EQ(small.Find(0), nullptr);
  EXPECT_FALSE(flags_.Has(0, PageFlags::kCode));
  EXPECT_TRUE(flags_.Has(at - 64, PageFlags::kCode));
}

TEST_F(CodeCacheTest, DropAll) {
  Insert(cache_, 0x1000, 1);
  Insert(cache_, 0x5000, 2);
  cache_.DropAll();
  EXPECT_EQ(cache_.Find(0x1000), nullptr);
  EXPECT_FALSE(flags_.Has(0x5000, PageFlags::kCode));
  EXPECT_EQ(Insert(cache_, 0x1000, 3)->immediate, 3);
}

TEST_F(CodeCacheTest, TrimKeepsWhatIsInheritedUnlessMuchIsAdded) {
  Insert(cache_, 0x1000, 1);
  cache_.MarkIn(&flags_);  // by the next user
  Insert(cache_, 0x5000, 2);
  uint64_t generation = cache_.generation();
  cache_.Trim();
  EXPECT_EQ(cache_.generation(), generation);
  EXPECT_NE(cache_.Find(0x1000), nullptr);
  EXPECT_NE(cache_.Find(0x5000), nullptr);
  for (uint64_t at = 0x10000; at < 0x20000; at += 512) {
    Insert(cache_, at, 3, CodeCache::kMaxBlock);
  }
  cache_.Trim();
  EXPECT_EQ(cache_.Find(0x1000), nullptr);
  EXPECT_FALSE(flags_.Has(0x1000, PageFlags::kCode));
  // From now on all of it is this user's own.
  Insert(cache_, 0x1000, 1);
  cache_.Trim();
  EXPECT_EQ(cache_.Find(0x1000), nullptr);
}

}  // namespace
}  // namespace cube::vmm::ring0
