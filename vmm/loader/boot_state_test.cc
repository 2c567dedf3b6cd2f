#include "vmm/loader/boot_state.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

// Translates an address as the CPU does with 4-level paging; nothing if it is not mapped.
std::optional<uint64_t> Translate(const GuestMemory& memory, uint64_t cr3, uint64_t address) {
  constexpr uint64_t kAddressMask = 0x000ffffffffff000;
  uint64_t table = cr3;
  for (int level = 3; level >= 0; --level) {
    int shift = 12 + 9 * level;
    auto entry = memory.ReadObject<uint64_t>(table + (address >> shift & 511) * 8);
    // Present and writable.
    if (!entry || (*entry & 3) != 3) return std::nullopt;
    uint64_t offset_mask = (uint64_t{1} << shift) - 1;
    if (level == 0 || (*entry & 0x80) != 0) {
      return (*entry & kAddressMask & ~offset_mask) | (address & offset_mask);
    }
    table = *entry & kAddressMask;
  }
  return std::nullopt;
}

TEST(BootState, IsThatOfThe64BitBootProtocol) {
  GuestMemory memory = GuestMemory::Create(32 * kMiB).value();
  Result<BootState> state = WriteBootState(0x1000000, memory);
  ASSERT_TRUE(state.ok()) << state.error().message();
  EXPECT_EQ(state->rip, 0x1000000u);
  EXPECT_EQ(state->rsi, kBootParamsAddress);
  EXPECT_EQ(state->rsp, kBootStackTop);
  EXPECT_EQ(state->rflags & 0x200, 0u) << "interrupts are on";
  EXPECT_EQ(state->rflags, 2u);
  EXPECT_EQ(state->cr0, 0x80050033u);
  EXPECT_EQ(state->cr4, 0x20u);
  EXPECT_EQ(state->efer, 0x500u);
  EXPECT_EQ(state->code_selector, 0x10);
  EXPECT_EQ(state->data_selector, 0x18);
}

TEST(BootState, GdtHoldsTheSelectors) {
  GuestMemory memory = GuestMemory::Create(32 * kMiB).value();
  BootState state = WriteBootState(0x1000000, memory).value();
  EXPECT_GE(state.gdt_limit, state.data_selector + 7);
  // Present 64-bit code and writable data with base 0, limit 4 GiB, privilege 0.
  EXPECT_EQ(memory.ReadObject<uint64_t>(state.gdt_base + state.code_selector), 0xaf9b000000ffff);
  EXPECT_EQ(memory.ReadObject<uint64_t>(state.gdt_base + state.data_selector), 0xcf93000000ffff);
}

TEST(BootState, PageTablesMapTheFirst4GiBToThemselves) {
  GuestMemory memory = GuestMemory::Create(32 * kMiB).value();
  BootState state = WriteBootState(0x1000000, memory).value();
  for (uint64_t address = 0; address < 4 * kGiB; address += 2 * kMiB) {
    ASSERT_EQ(Translate(memory, state.cr3, address + 0x12345), address + 0x12345);
  }
  EXPECT_EQ(Translate(memory, state.cr3, 4 * kGiB), std::nullopt);
  EXPECT_EQ(Translate(memory, state.cr3, 512 * kGiB), std::nullopt);
}

TEST(BootState, GuestWithoutLowMemoryIsAnError) {
  std::vector<uint8_t> low(kBootPageTables + kPageSize);
  Result<BootState> state = WriteBootState(0, GuestMemory::Borrow({{0, low, true}}));
  ASSERT_FALSE(state.ok());
  EXPECT_EQ(state.error().message(),
            "the guest has no memory at 0x9000 for the 24576 bytes of the boot page tables");
  state = WriteBootState(0, GuestMemory::Borrow({}));
  ASSERT_FALSE(state.ok());
  EXPECT_EQ(state.error().message(),
            "the guest has no memory at 0x500 for the 32 bytes of the boot GDT");
}

}  // namespace
}  // namespace cube::vmm
