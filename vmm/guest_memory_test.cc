#include "vmm/guest_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

TEST(GuestMemory, SizesThatNoGuestCanHaveAreErrors) {
  for (uint64_t size : {uint64_t{0}, kMinMemory - kPageSize, kMinMemory + 1,
                        kMaxMemory + kPageSize, ~uint64_t{0}}) {
    EXPECT_FALSE(GuestMemory::Create(size).ok()) << size;
  }
}

TEST(GuestMemory, LiesAroundTheHole) {
  GuestMemory memory = GuestMemory::Create(4 * kGiB).value();
  EXPECT_EQ(memory.ram_size(), 4 * kGiB);
  EXPECT_EQ(memory.low_ram_end(), kHoleStart);
  EXPECT_TRUE(memory.Slice(kHoleStart - 1, 1));
  EXPECT_FALSE(memory.Slice(kVirtioMmioStart, 1));
  EXPECT_FALSE(memory.Slice(kHoleEnd - 1, 2));
  EXPECT_TRUE(memory.Slice(kHoleEnd, kHoleEnd - kHoleStart));
  EXPECT_FALSE(memory.Slice(4 * kGiB + (kHoleEnd - kHoleStart), 1));
  EXPECT_EQ(memory.mailbox().size(), abi::kMailboxSize);
}

TEST(GuestMemory, AccessesStayWithinOneRegion) {
  std::vector<uint8_t> first(32, 1), second(32, 2);
  GuestMemory memory = GuestMemory::Borrow({{0x1000, first, true}, {0x1020, second, true}});
  std::vector<uint8_t> bytes(8, 9);
  EXPECT_TRUE(memory.Write(0x1018, bytes));
  EXPECT_EQ(first[31], 9);
  EXPECT_FALSE(memory.Write(0x101c, bytes)) << "straddles two regions";
  EXPECT_FALSE(memory.Write(0xffc, bytes));
  EXPECT_FALSE(memory.Write(0x1039, bytes));
  EXPECT_EQ(second, std::vector<uint8_t>(32, 2)) << "a refused write changed something";
  EXPECT_TRUE(memory.Read(0x1038, bytes));
  EXPECT_EQ(bytes, std::vector<uint8_t>(8, 2));
  EXPECT_FALSE(memory.Slice(0x1000, ~uint64_t{0}));
  EXPECT_FALSE(memory.Slice(~uint64_t{0}, 2));
  EXPECT_EQ(memory.ReadObject<uint32_t>(0x103c), 0x02020202u);
  EXPECT_EQ(memory.ReadObject<uint32_t>(0x103d), std::nullopt);
}

// No bytes at all are a valid access, also from a span that points nowhere.
TEST(GuestMemory, EmptyAccess) {
  std::vector<uint8_t> ram(16);
  GuestMemory memory = GuestMemory::Borrow({{0x1000, ram, true}});
  EXPECT_TRUE(memory.Read(0x1000, {}));
  EXPECT_TRUE(memory.Write(0x1000, {}));
  EXPECT_TRUE(memory.Read(0x1010, {}));
  EXPECT_FALSE(memory.Read(0x1011, {}));
  EXPECT_FALSE(memory.Write(0xfff, {}));
}

// Whole pages of RAM only; the mailbox stays.
TEST(GuestMemory, DiscardedPagesReadAsZero) {
  auto memory = GuestMemory::Create(kMinMemory);
  ASSERT_TRUE(memory.ok());
  std::span<uint8_t> pages = *memory->Slice(0x10000, 3 * kPageSize);
  std::ranges::fill(pages, uint8_t{1});
  EXPECT_TRUE(memory->Discard(pages.subspan(1, 2 * kPageSize)));
  EXPECT_EQ(pages[kPageSize - 1], 1);
  EXPECT_EQ(pages[kPageSize], 0);
  EXPECT_EQ(pages[2 * kPageSize], 1) << "not a whole page";
  EXPECT_TRUE(memory->Discard(pages.first(8))) << "no whole page is nothing to do";
  EXPECT_EQ(pages[0], 1);
  memory->mailbox()[0] = 1;
  EXPECT_FALSE(memory->Discard(memory->mailbox()));
  EXPECT_EQ(memory->mailbox()[0], 1);
  std::vector<uint8_t> foreign(2 * kPageSize, 1);
  EXPECT_FALSE(memory->Discard(foreign));
}

}  // namespace
}  // namespace cube::vmm
