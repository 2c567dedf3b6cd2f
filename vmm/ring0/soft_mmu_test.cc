#include "vmm/ring0/soft_mmu.h"

#include <gtest/gtest.h>

#include <vector>

#include "vmm/assist/guest_virtual.h"
#include "vmm/paging.h"
#include "vmm/ring0/test_machine.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

constexpr uint64_t kPresent = kEntryPresent;
constexpr uint64_t kWrite = kEntryPresent | kEntryWritable;
constexpr uint64_t kUser = kWrite | kEntryUser;
constexpr uint64_t kA = 0x20001000, kB = kA + kPageSize;  // two pages of the lower half
constexpr uint64_t kHigh = 0xffff888000000000;
constexpr uint64_t kData = 0x80000, kOther = 0x90000;  // physical
constexpr uint32_t kFetchBit = 16;

class SoftMmuTest : public testing::Test {
 protected:
  using Access = SoftMmu::Access;

  // The error code of the fault that an access raises; -1 if it is none, -2 if it is handed off.
  int Fault(uint64_t address, Access access) {
    SoftMmu::Page page;
    cpu().stop = Stop::kNone;
    if (machine_.mmu().Translate(cpu(), address, access, &page)) return -1;
    if (cpu().stop == Stop::kHandOff) return -2;
    EXPECT_EQ(cpu().stop, Stop::kException);
    EXPECT_EQ(cpu().exception.vector, kVectorPageFault);
    EXPECT_EQ(cpu().exception.address, address);
    EXPECT_TRUE(cpu().exception.has_error_code);
    return static_cast<int>(cpu().exception.error_code);
  }
  // Loads and stores as handlers do, through the fast path if they can.
  uint64_t Read(uint64_t address) {
    uint64_t value = 0;
    EXPECT_TRUE(Load(cpu(), address, &value));
    return value;
  }
  void Write(uint64_t address, uint64_t value) { EXPECT_TRUE(Store(cpu(), address, value)); }
  bool Increment(uint64_t address) {
    return Modify<uint64_t, false>(cpu(), address, [](uint64_t value) { return value + 1; });
  }

  Cpu& cpu() { return machine_.cpu(); }
  TestMachine machine_;
};

TEST_F(SoftMmuTest, AbsentAtEachLevel) {
  for (int level = 4; level >= 1; --level) {
    machine_.Map(kA, kData, kWrite);
    EXPECT_EQ(Fault(kA, Access::kRead), -1);
    uint64_t* entry = machine_.Entry(kA, level);
    uint64_t value = *entry;
    *entry &= ~kEntryPresent;
    EXPECT_EQ(Fault(kA, Access::kRead), 0) << level;
    EXPECT_EQ(Fault(kA, Access::kWrite), 2) << level;
    EXPECT_EQ(Fault(kA, Access::kFetch), int{kFetchBit}) << level;
    *entry = value;
  }
}

TEST_F(SoftMmuTest, ReadOnlyWithAndWithoutWriteProtect) {
  for (int level = 4; level >= 1; --level) {
    machine_.Map(kA, kData, kWrite);
    uint64_t* entry = machine_.Entry(kA, level);
    *entry &= ~kEntryWritable;
    EXPECT_EQ(Fault(kA, Access::kRead), -1);
    EXPECT_EQ(Fault(kA, Access::kWrite), 3) << level;
    cpu().cr0 &= ~kCr0WriteProtect;
    EXPECT_EQ(Fault(kA, Access::kWrite), -1) << level;
    cpu().cr0 |= kCr0WriteProtect;
    *entry |= kEntryWritable;
  }
}

TEST_F(SoftMmuTest, NoExecute) {
  for (int level = 4; level >= 1; --level) {
    machine_.Map(kA, kData, kWrite);
    uint64_t* entry = machine_.Entry(kA, level);
    *entry |= kEntryNoExecute;
    EXPECT_EQ(Fault(kA, Access::kRead), -1);
    EXPECT_EQ(Fault(kA, Access::kFetch), int{kFetchBit | kFaultPresent}) << level;
    // Without NXE the bit is reserved, and fetches are not told apart.
    cpu().efer &= ~kEferNoExecute;
    EXPECT_EQ(Fault(kA, Access::kFetch), int{kFaultPresent | kFaultReserved}) << level;
    // With SMEP they are.
    cpu().cr4 |= kCr4Smep;
    EXPECT_EQ(Fault(kA, Access::kFetch), int{kFetchBit | kFaultPresent | kFaultReserved}) << level;
    cpu().cr4 &= ~kCr4Smep;
    cpu().efer |= kEferNoExecute;
    *entry &= ~kEntryNoExecute;
  }
}

TEST_F(SoftMmuTest, UserPages) {
  machine_.Map(kA, kData, kUser);
  EXPECT_EQ(Fault(kA, Access::kFetch), -1);
  cpu().cr4 |= kCr4Smep;
  EXPECT_EQ(Fault(kA, Access::kFetch), int{kFetchBit | kFaultPresent});
  EXPECT_EQ(Fault(kA, Access::kWrite), -1);
  cpu().cr4 |= kCr4Smap;
  EXPECT_EQ(Fault(kA, Access::kRead), int{kFaultPresent});
  EXPECT_EQ(Fault(kA, Access::kWrite), int{kFaultPresent | kFaultWrite});
  cpu().system_flags |= kFlagAlignmentCheck;
  EXPECT_EQ(Fault(kA, Access::kRead), -1);
  // A page is the user's only if every level says so.
  cpu().system_flags &= ~kFlagAlignmentCheck;
  *machine_.Entry(kA, 3) &= ~kEntryUser;
  EXPECT_EQ(Fault(kA, Access::kRead), -1);
  EXPECT_EQ(Fault(kA, Access::kFetch), -1);
}

TEST_F(SoftMmuTest, SmapHoldsAfterAccessWithAc) {
  machine_.Map(kA, kData, kUser);
  cpu().cr4 |= kCr4Smap;
  cpu().system_flags |= kFlagAlignmentCheck;
  Write(kA, 5);
  cpu().system_flags &= ~kFlagAlignmentCheck;
  uint64_t value;
  EXPECT_FALSE(Load(cpu(), kA, &value));
  EXPECT_FALSE(Store(cpu(), kA, value));
}

TEST_F(SoftMmuTest, ReservedBits) {
  machine_.Map(kA, kData, kWrite);
  for (int level = 4; level >= 1; --level) {
    uint64_t* entry = machine_.Entry(kA, level);
    *entry |= 1ull << 46;
    EXPECT_EQ(Fault(kA, Access::kRead), int{kFaultPresent | kFaultReserved}) << level;
    *entry &= ~(1ull << 46);
  }
  *machine_.Entry(kA, 4) |= kEntryLarge;
  EXPECT_EQ(Fault(kA, Access::kWrite), int{kFaultPresent | kFaultReserved | kFaultWrite});
  *machine_.Entry(kA, 4) &= ~kEntryLarge;
  machine_.MapLarge(kHigh, 1 << 20, kWrite, 2);
  EXPECT_EQ(Fault(kHigh, Access::kRead), int{kFaultPresent | kFaultReserved});
}

TEST_F(SoftMmuTest, AccessedAndDirty) {
  machine_.Map(kA, kData, kWrite);
  uint64_t* leaf = machine_.Entry(kA, 1);
  EXPECT_EQ(Fault(kA, Access::kRead), -1);
  EXPECT_EQ(*leaf & (kEntryAccessed | kEntryDirty), kEntryAccessed);
  for (int level = 4; level > 1; --level) {
    EXPECT_EQ(*machine_.Entry(kA, level) & (kEntryAccessed | kEntryDirty), kEntryAccessed);
  }
  // A load fills the TLB for loads only: the first store must still set the dirty bit.
  Read(kA);
  Write(kA, 1);
  EXPECT_EQ(*leaf & kEntryDirty, kEntryDirty);
  // A store that is refused leaves no dirty bit.
  *leaf = kData | kPresent;
  machine_.mmu().FlushAll(cpu());
  EXPECT_EQ(Fault(kA, Access::kWrite), 3);
  EXPECT_EQ(*leaf & kEntryDirty, 0u);
}

TEST_F(SoftMmuTest, NotCanonicalIsHandedOff) {
  EXPECT_EQ(Fault(0x0000800000000000, Access::kRead), -2);
  EXPECT_EQ(Fault(0xffff7fffffffffff, Access::kWrite), -2);
  machine_.Map(0x00007ffffffff000, kData, kWrite);
  uint64_t value;
  cpu().stop = Stop::kNone;
  EXPECT_FALSE(Load(cpu(), 0x00007ffffffffffc, &value));
  EXPECT_EQ(cpu().stop, Stop::kHandOff);
}

TEST_F(SoftMmuTest, LargePages) {
  machine_.Quad(0x12345 & ~7ull) = 77;
  machine_.MapLarge(kHigh, 0, kWrite, 2);
  EXPECT_EQ(Read(kHigh + (0x12345 & ~7ull)), 77u);
  machine_.MapLarge(kHigh + kGiB, 0, kWrite, 3);
  EXPECT_EQ(Read(kHigh + kGiB + (0x12345 & ~7ull)), 77u);
  // Beyond memory: nobody's.
  uint64_t value;
  EXPECT_FALSE(Load(cpu(), kHigh + kGiB + TestMachine::kMemorySize, &value));
  EXPECT_EQ(cpu().stop, Stop::kHandOff);
}

TEST_F(SoftMmuTest, InvalidatingOneAddressDropsAllOfItsLargePage) {
  uint64_t far = 37 * kPageSize;
  machine_.MapLarge(kA & ~(kLargePageSize - 1), 0, kWrite, 2);
  uint64_t start = kA & ~(kLargePageSize - 1);
  machine_.Quad(far) = 1;
  EXPECT_EQ(Read(start + far), 1u);
  // Now a table of small pages, of which `far` is another.
  *machine_.Entry(start, 2) = 0;
  machine_.Map(start + far, kOther, kWrite);
  machine_.Quad(kOther) = 2;
  machine_.mmu().FlushPage(cpu(), start);
  EXPECT_EQ(Read(start + far), 2u);
}

TEST_F(SoftMmuTest, FlushRules) {
  machine_.Map(kA, kData, kWrite);
  machine_.Map(kHigh, kData, kWrite | kEntryGlobal);
  machine_.Quad(kData) = 1;
  machine_.Quad(kOther) = 2;
  EXPECT_EQ(Read(kA), 1u);
  EXPECT_EQ(Read(kHigh), 1u);
  machine_.Map(kA, kOther, kWrite);
  machine_.Map(kHigh, kOther, kWrite | kEntryGlobal);
  EXPECT_EQ(Read(kA), 1u);  // as a processor's TLB would
  machine_.mmu().LoadCr3(cpu(), TestMachine::kRoot);
  EXPECT_EQ(Read(kA), 2u);
  EXPECT_EQ(Read(kHigh), 1u);
  machine_.mmu().FlushPage(cpu(), kHigh + 5);
  EXPECT_EQ(Read(kHigh), 2u);
}

TEST_F(SoftMmuTest, LocalPageOfTheUpperHalfGoesWithCr3) {
  machine_.Quad(kData) = 1;
  machine_.Quad(kOther) = 2;
  machine_.Map(kHigh, kData, kWrite);
  EXPECT_EQ(Read(kHigh), 1u);
  machine_.Map(kHigh, kOther, kWrite);
  machine_.mmu().LoadCr3(cpu(), TestMachine::kRoot);
  EXPECT_EQ(Read(kHigh), 2u);
}

TEST_F(SoftMmuTest, GlobalMeansNothingWithoutPge) {
  cpu().cr4 &= ~kCr4GlobalPages;
  machine_.Quad(kData) = 1;
  machine_.Quad(kOther) = 2;
  machine_.Map(kHigh, kData, kWrite | kEntryGlobal);
  EXPECT_EQ(Read(kHigh), 1u);
  machine_.Map(kHigh, kOther, kWrite | kEntryGlobal);
  machine_.mmu().LoadCr3(cpu(), TestMachine::kRoot);
  EXPECT_EQ(Read(kHigh), 2u);
}

TEST_F(SoftMmuTest, AcrossPages) {
  machine_.Map(kA, kData, kWrite);
  machine_.Map(kB, kOther, kWrite);
  uint64_t address = kB - 3;
  Write(address, 0x1122334455667788);
  EXPECT_EQ(Read(address), 0x1122334455667788u);
  EXPECT_EQ(*machine_.At(kData + kPageSize - 3), 0x88);
  EXPECT_EQ(*machine_.At(kOther), 0x55);
  EXPECT_TRUE(Increment(address));
  EXPECT_EQ(Read(address), 0x1122334455667789u);
  // The second page refuses: the fault names its start, and the first page is as it was.
  *machine_.Entry(kB, 1) = kOther | kPresent;
  machine_.mmu().FlushAll(cpu());
  EXPECT_FALSE(Store(cpu(), address, uint64_t{0}));
  EXPECT_EQ(cpu().exception.address, kB);
  EXPECT_EQ(cpu().exception.error_code, 3u);
  EXPECT_FALSE(Increment(address));
  EXPECT_EQ(cpu().exception.address, kB);
  EXPECT_EQ(Read(address), 0x1122334455667789u);
}

TEST_F(SoftMmuTest, Mmio) {
  machine_.Map(kA, TestMachine::kMmio, kWrite);
  uint32_t value = 0;
  EXPECT_TRUE(Load(cpu(), kA + 0x10, &value));
  EXPECT_EQ(value, 0x13121110u);
  EXPECT_TRUE(Store(cpu(), kA + 0x20, uint16_t{0xabcd}));
  EXPECT_EQ(machine_.device().last_offset, 0x20u);
  EXPECT_EQ(machine_.device().last_value, 0xabcdu);
  EXPECT_EQ(machine_.device().reads, 1u);
  // Never through the TLB; and a read-modify-write is KVM's.
  EXPECT_TRUE(Load(cpu(), kA + 0x10, &value));
  EXPECT_EQ(machine_.device().reads, 2u);
  EXPECT_FALSE(Increment(kA));
  EXPECT_EQ(cpu().stop, Stop::kHandOff);
}

// A page that becomes a table loses the right to be written past the tracker.
TEST_F(SoftMmuTest, StoresToTablesAreSeen) {
  machine_.Map(kA, kData, kWrite);
  Write(kA, 0);  // the fast path may write kData now
  machine_.tables().Rebuild({TestMachine::kRoot});
  machine_.mmu().Refresh(cpu());
  // Linked as the table of another region.
  machine_.Map(kHigh, TestMachine::kRoot, kWrite);
  uint64_t slot = kHigh + 8 * 100;
  Write(slot, kData | kUser);
  EXPECT_TRUE(machine_.tables().IsTable(kData));
  Write(kA + 8, kOther | kUser);  // now a page directory pointer table
  EXPECT_TRUE(machine_.tables().IsTable(kOther));
  // Bytes of an entry, and a locked change of one.
  EXPECT_TRUE(Store(cpu(), kA + 8, uint8_t{0}));
  EXPECT_FALSE(machine_.tables().IsTable(kOther));
  EXPECT_TRUE((Modify<uint64_t, true>(cpu(), kA + 8, [](uint64_t v) { return v | kUser; })));
  EXPECT_TRUE(machine_.tables().IsTable(kOther));
}

TEST_F(SoftMmuTest, MarkingAPageTakesTheRightToWriteItAlone) {
  constexpr uint64_t kFirst = 0x100000;
  constexpr uint64_t kPages = 64;
  auto address = [](uint64_t i) { return kHigh + i * kPageSize; };
  for (uint64_t i = 0; i < kPages; ++i) {
    machine_.Map(address(i), kFirst + i * kPageSize, kWrite | kEntryGlobal);
    Write(address(i), i);
  }
  auto writable = [&](uint64_t i) { return TlbOf(cpu(), address(i)).write_page == address(i) >> 12; };
  machine_.flags().Set(kFirst + 5 * kPageSize, PageFlags::kTable);
  machine_.flags().Set(kFirst + 7 * kPageSize + 8, PageFlags::kCode);
  machine_.mmu().Refresh(cpu());
  for (uint64_t i = 0; i < kPages; ++i) EXPECT_EQ(writable(i), i != 5 && i != 7) << i;
  // More than are remembered: all go.
  for (uint64_t i = 20; i < 22 + PageFlags::kRecent; ++i) {
    machine_.flags().Set(kFirst + i * kPageSize, PageFlags::kTable);
  }
  machine_.mmu().Refresh(cpu());
  for (uint64_t i = 0; i < kPages; ++i) EXPECT_FALSE(writable(i)) << i;
}

// A store to a table or to code needs no walk if one has been made; nothing else changes.
TEST_F(SoftMmuTest, StoresWithCareAreRemembered) {
  constexpr uint64_t kEntry = kPresent | kEntryUser | kEntryAccessed;
  machine_.Map(kHigh, kData, kWrite | kEntryGlobal);
  machine_.flags().Set(kData, PageFlags::kTable);
  for (uint64_t i = 0; i < 4; ++i) {
    Write(kHigh + 8 * i, kEntry | (i + 1) << 12);
    Write(kHigh + 8 * i, 0);
    EXPECT_TRUE((Modify<uint64_t, true>(cpu(), kHigh + 8 * i, [](uint64_t) { return kEntry; })));
    EXPECT_TRUE(Increment(kHigh + 8 * i));
    auto& queue = machine_.tables().replay_queue();
    EXPECT_EQ(queue, std::vector<uint64_t>(2, kData + 8 * i));
    queue.clear();
  }
  EXPECT_NE(TlbOf(cpu(), kHigh).special, 0u);
  // Gone with the translation, and of no use to another one.
  *machine_.Entry(kHigh, 1) = kPresent;
  machine_.mmu().FlushPage(cpu(), kHigh);
  EXPECT_FALSE(Store<uint64_t>(cpu(), kHigh, 1));
  EXPECT_EQ(cpu().stop, Stop::kException);
  machine_.Map(kHigh, kOther, kWrite | kEntryGlobal);
  machine_.mmu().FlushPage(cpu(), kHigh);
  EXPECT_EQ(Read(kHigh), 0u);
  EXPECT_EQ(TlbOf(cpu(), kHigh).special, 0u);
  Write(kHigh, 3);
  EXPECT_EQ(machine_.Quad(kOther), 3u);
}

TEST_F(SoftMmuTest, ChangedMappingWithoutFlushWritesNoTable) {
  machine_.Map(kA, kData, kWrite);
  machine_.Map(kB, kData + kPageSize, kWrite);
  Write(kA, 1);
  machine_.tables().Rebuild({TestMachine::kRoot});
  machine_.mmu().Refresh(cpu());
  Write(kA, 1);
  // kA maps the root now, which a load across pages notices.
  machine_.Map(kA, TestMachine::kRoot, kWrite);
  Read(kB - 4);
  Write(kA + 8 * 100, kData | kUser);
  EXPECT_EQ(machine_.Quad(TestMachine::kRoot + 8 * 100), kData | kUser);
  EXPECT_TRUE(machine_.tables().IsTable(kData));
}

}  // namespace
}  // namespace cube::vmm::ring0
