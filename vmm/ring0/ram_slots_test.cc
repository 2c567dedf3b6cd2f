#include "vmm/ring0/ram_slots.h"

#include <gtest/gtest.h>

#include "vmm/kvm/kvm.h"
#include "vmm/memory_map.h"
#include "vmm/paging.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

constexpr uint64_t kPiece = 1 * kMiB;
constexpr uint64_t kRoot = 0x1000, kPointers = 0x2000, kDirectory = 0x3000, kTable = 0x4000;
constexpr uint64_t kUserTable = kEntryPresent | kEntryUser;

class RamSlotsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto kvm = Kvm::Open();
    ASSERT_TRUE(kvm.ok()) << kvm.error().message();
    auto vm = kvm->CreateVm();
    ASSERT_TRUE(vm.ok());
    vm_ = std::move(*vm);
    auto memory = GuestMemory::Create(64 * kMiB);
    ASSERT_TRUE(memory.ok());
    memory_ = std::move(*memory);
    slots_ = std::make_unique<RamSlots>(*vm_, *memory_, 100, kPiece);
  }
  void Put(uint64_t address, uint64_t value) {
    ASSERT_TRUE(memory_->Write(address, {reinterpret_cast<const uint8_t*>(&value), sizeof value}));
  }
  // Tables for linear addresses below 2 MiB, in the first piece.
  void MakeTables() {
    Put(kRoot, kPointers | kUserTable);
    Put(kPointers, kDirectory | kUserTable);
    Put(kDirectory, kTable | kUserTable);
  }

  std::optional<KvmVm> vm_;
  std::optional<GuestMemory> memory_;
  std::unique_ptr<RamSlots> slots_;
};

TEST_F(RamSlotsTest, NothingIsThereUntilItIsAskedFor) {
  EXPECT_TRUE(slots_->IsMissing(0));
  EXPECT_TRUE(slots_->pieces().empty());
  EXPECT_TRUE(slots_->Ensure(5 * kMiB + 17));
  EXPECT_FALSE(slots_->Ensure(5 * kMiB));
  EXPECT_FALSE(slots_->IsMissing(6 * kMiB - 1));
  EXPECT_TRUE(slots_->IsMissing(6 * kMiB));
  EXPECT_EQ(slots_->pieces(), std::vector<uint32_t>{5});
  // Not RAM.
  for (uint64_t address : {64 * kMiB, abi::kMailboxAddress, kHoleEnd, ~uint64_t{0}}) {
    EXPECT_FALSE(slots_->IsMissing(address));
    EXPECT_FALSE(slots_->Ensure(address));
  }
  EXPECT_FALSE(slots_->complete());
  slots_->EnsureAll();
  EXPECT_TRUE(slots_->complete());
  EXPECT_TRUE(slots_->status().ok());
}

TEST_F(RamSlotsTest, AWalkIsFollowedAsFarAsItGoes) {
  MakeTables();
  Put(kTable + 8, 9 * kMiB | kEntryPresent);
  EXPECT_TRUE(slots_->EnsureMapped(kRoot, 0x1234));
  EXPECT_EQ(slots_->pieces(), (std::vector<uint32_t>{0, 9}));
  EXPECT_FALSE(slots_->EnsureMapped(kRoot, 0x1234));
  EXPECT_FALSE(slots_->EnsureMapped(kRoot, 0x5000));  // absent
  EXPECT_FALSE(slots_->EnsureMapped(~uint64_t{0}, 0x5000));
}

TEST_F(RamSlotsTest, UserSpaceIsWhatUserModeCanReach) {
  MakeTables();
  Put(kTable, 10 * kMiB | kEntryPresent | kEntryUser);
  Put(kTable + 8, 11 * kMiB | kEntryPresent);  // the kernel's
  Put(kTable + 16, 12 * kMiB | kEntryUser);    // absent
  Put(kDirectory + 8, 20 * kMiB | kUserTable | kEntryLarge);
  slots_->EnsureUserSpace(kRoot);
  EXPECT_EQ(slots_->pieces(), (std::vector<uint32_t>{0, 10, 20, 21}));
}

TEST_F(RamSlotsTest, TablesThatLeadToThemselvesEnd) {
  for (uint64_t i = 0; i < 512; ++i) Put(kRoot + 8 * i, kRoot | kUserTable);
  slots_->EnsureUserSpace(kRoot);
  EXPECT_TRUE(slots_->status().ok());
  EXPECT_FALSE(slots_->IsMissing(kRoot));
}

TEST_F(RamSlotsTest, PagesThatKvmWritesBehindTheGuest) {
  slots_->EnsureForMsr(0x4b564d01, 30 * kMiB | 1);
  slots_->EnsureForMsr(kMsrTsc, 31 * kMiB);
  slots_->EnsureForMsr(0x12, 0);
  EXPECT_EQ(slots_->pieces(), std::vector<uint32_t>{30});
}

TEST_F(RamSlotsTest, AStateNamesWhatItWillComeTo) {
  MakeTables();
  Put(kTable + 0 * 8, 40 * kMiB | kEntryPresent);  // code
  Put(kTable + 1 * 8, 41 * kMiB | kEntryPresent);  // stack
  Put(kTable + 2 * 8, 42 * kMiB | kEntryPresent);  // GDT
  Put(kTable + 3 * 8, 43 * kMiB | kEntryPresent);  // TSS
  Put(kTable + 4 * 8, 44 * kMiB | kEntryPresent);  // its stack
  Put(kTable + 5 * 8, 45 * kMiB | kEntryPresent);  // system calls
  Put(43 * kMiB + 4, 0x5000);
  VcpuState state;
  state.regs.rip = 0x10;
  state.regs.rsp = 0x1800;
  state.sregs.cr0 = uint64_t{1} << 31;
  state.sregs.efer = kEferLongModeActive;
  state.sregs.cr3 = kRoot;
  state.sregs.gdt.base = 0x2000;
  state.sregs.tr.base = 0x3000;
  state.msrs.push_back({kMsrLstar, 0, 0x5000});
  slots_->EnsureFor(state);
  EXPECT_EQ(slots_->pieces(), (std::vector<uint32_t>{0, 40, 41, 42, 43, 44, 45}));
  // Before long mode it could be anything.
  VcpuState early;
  slots_->EnsureFor(early);
  EXPECT_TRUE(slots_->complete());
}

TEST_F(RamSlotsTest, TheSamePiecesInAnotherVm) {
  slots_->EnsurePieces(std::vector<uint32_t>{3, 7, 3, 9999});
  EXPECT_EQ(slots_->pieces(), (std::vector<uint32_t>{3, 7}));
}

}  // namespace
}  // namespace cube::vmm::ring0
