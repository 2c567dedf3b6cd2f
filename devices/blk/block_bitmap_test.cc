#include "devices/blk/block_bitmap.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace cube::devices::blk {
namespace {

constexpr uint64_t kChunkBits = BlockBitmap::kChunk * 8;

TEST(BlockBitmap, RunsEndWhereTheBitChanges) {
  BlockBitmap bitmap = BlockBitmap::Create(1000).value();
  EXPECT_EQ(bitmap.RunLength(0, 1000), 1000u);
  bitmap.Set(60, 140);
  EXPECT_EQ(bitmap.RunLength(0, 1000), 60u);
  EXPECT_EQ(bitmap.RunLength(59, 1), 1u);
  EXPECT_EQ(bitmap.RunLength(60, 1000 - 60), 140u);
  EXPECT_EQ(bitmap.RunLength(128, 10), 10u);
  EXPECT_EQ(bitmap.RunLength(200, 800), 800u);
  EXPECT_EQ(bitmap.Count(), 140u);
}

// Against the plainest reading, over ranges that begin and end anywhere in a word.
TEST(BlockBitmap, SetsWhatItIsToldTo) {
  for (uint64_t first : {0, 1, 63, 64, 65, 127}) {
    for (uint64_t count : {1, 2, 63, 64, 65, 128, 129}) {
      BlockBitmap bitmap = BlockBitmap::Create(300).value();
      bitmap.Set(first, count);
      for (uint64_t block = 0; block < 300; ++block) {
        ASSERT_EQ(bitmap.Get(block), block >= first && block < first + count)
            << first << " " << count << " " << block;
      }
      EXPECT_EQ(bitmap.RunLength(first, 300 - first), count);
    }
  }
}

TEST(BlockBitmap, RemembersChunksThatChanged) {
  BlockBitmap bitmap = BlockBitmap::Create(10 * kChunkBits).value();
  EXPECT_FALSE(bitmap.dirty());
  bitmap.Set(kChunkBits - 1, 2);
  bitmap.Set(7 * kChunkBits, 1);
  EXPECT_TRUE(bitmap.dirty());
  EXPECT_EQ(bitmap.TakeDirty(), (std::vector<uint32_t>{0, 1, 7}));
  EXPECT_TRUE(bitmap.TakeDirty().empty());
  bitmap.Set(7 * kChunkBits, 1);  // nothing new
  EXPECT_FALSE(bitmap.dirty());
  bitmap.MarkDirty(3);
  EXPECT_EQ(bitmap.TakeDirty(), (std::vector<uint32_t>{3}));
}

TEST(BlockBitmap, ClearForgetsAll) {
  BlockBitmap bitmap = BlockBitmap::Create(100).value();
  bitmap.Set(0, 100);
  bitmap.Clear();
  EXPECT_EQ(bitmap.Count(), 0u);
  EXPECT_FALSE(bitmap.dirty());
}

TEST(BlockBitmap, BitsBeyondTheLastBlockAreRefused) {
  BlockBitmap bitmap = BlockBitmap::Create(kChunkBits + 10).value();
  std::vector<uint8_t> chunk(BlockBitmap::kChunk);
  chunk[1] = 3;
  EXPECT_TRUE(bitmap.LoadChunk(1, chunk));
  EXPECT_TRUE(bitmap.Get(kChunkBits + 9));
  chunk[1] = 4;
  EXPECT_FALSE(bitmap.LoadChunk(1, chunk));
  chunk[1] = 0;
  chunk[4095] = 1;
  EXPECT_FALSE(bitmap.LoadChunk(1, chunk));
  EXPECT_TRUE(bitmap.LoadChunk(0, chunk));
}

}  // namespace
}  // namespace cube::devices::blk
