#include "vmm/loader/mp_table.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

using Entry = std::vector<uint8_t>;

uint8_t Sum(std::span<const uint8_t> bytes) {
  uint8_t sum = 0;
  for (uint8_t byte : bytes) sum = static_cast<uint8_t>(sum + byte);
  return sum;
}

template <typename T>
T At(std::span<const uint8_t> bytes, size_t offset) {
  T value;
  memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

// Reads the table as a guest does: by the offsets of the specification.
class MpTable : public ::testing::TestWithParam<uint32_t> {
 protected:
  void SetUp() override {
    Status status = WriteMpTable(GetParam(), memory_);
    ASSERT_TRUE(status.ok()) << status.error().message();
    std::span<const uint8_t> pointer = *memory_.Slice(kMpTableAddress, 16);
    ASSERT_EQ(memcmp(pointer.data(), "_MP_", 4), 0);
    ASSERT_EQ(Sum(pointer), 0);
    EXPECT_EQ(pointer[8], 1);   // of 16 bytes
    EXPECT_EQ(pointer[9], 4);   // revision 1.4
    EXPECT_EQ(pointer[11], 0);  // a configuration table is there
    EXPECT_EQ(pointer[12], 0);  // no IMCR
    uint32_t address = At<uint32_t>(pointer, 4);
    header_ = *memory_.Slice(address, 44);
    ASSERT_EQ(memcmp(header_.data(), "PCMP", 4), 0);
    uint16_t length = At<uint16_t>(header_, 4);
    ASSERT_LE(address + length, kMpTableAddress + kMpTableMaxSize);
    std::span<const uint8_t> table = *memory_.Slice(address, length);
    ASSERT_EQ(Sum(table), 0);
    for (size_t at = 44; at < length;) {
      size_t size = table[at] == 0 ? 20 : 8;
      ASSERT_LE(at + size, length);
      entries_[table[at]].emplace_back(table.begin() + static_cast<ptrdiff_t>(at),
                                       table.begin() + static_cast<ptrdiff_t>(at + size));
      at += size;
      ++entry_count_;
    }
  }

  GuestMemory memory_ = GuestMemory::Create(32 * kMiB).value();
  std::span<const uint8_t> header_;
  std::map<int, std::vector<Entry>> entries_;
  uint16_t entry_count_ = 0;
};

TEST_P(MpTable, HeaderNamesTheLocalApicAndTheEntries) {
  EXPECT_EQ(header_[6], 4);
  EXPECT_EQ(At<uint32_t>(header_, 36), kLocalApicAddress);
  EXPECT_EQ(At<uint16_t>(header_, 34), entry_count_);
  EXPECT_EQ(std::string(header_.begin() + 8, header_.begin() + 28), "CUBE    MICROVM     ");
  EXPECT_EQ(At<uint32_t>(header_, 28), 0u);  // no OEM table
  EXPECT_EQ(At<uint16_t>(header_, 40), 0u);  // no extended table
}

TEST_P(MpTable, ProcessorsCountFromTheBootProcessor) {
  ASSERT_EQ(entries_[0].size(), GetParam());
  for (uint32_t i = 0; i < GetParam(); ++i) {
    const Entry& cpu = entries_[0][i];
    EXPECT_EQ(cpu[1], i);
    EXPECT_EQ(cpu[3], i == 0 ? 3 : 1);
  }
}

TEST_P(MpTable, OneIsaBusAndOneIoApic) {
  ASSERT_EQ(entries_[1].size(), 1u);
  EXPECT_EQ(memcmp(entries_[1][0].data() + 2, "ISA   ", 6), 0);
  ASSERT_EQ(entries_[2].size(), 1u);
  const Entry& io_apic = entries_[2][0];
  EXPECT_EQ(io_apic[1], GetParam());
  EXPECT_EQ(io_apic[3], 1);
  EXPECT_EQ(At<uint32_t>(io_apic, 4), kIoApicAddress);
}

TEST_P(MpTable, IsaInterruptsGoToTheirPins) {
  ASSERT_EQ(entries_[3].size(), 15u);
  std::map<int, int> pins;
  for (const Entry& entry : entries_[3]) {
    EXPECT_EQ(entry[1], 0);  // vectored
    EXPECT_EQ(At<uint16_t>(entry, 2), 0);
    EXPECT_EQ(entry[4], entries_[1][0][1]);
    EXPECT_EQ(entry[6], GetParam());
    pins[entry[5]] = entry[7];
  }
  EXPECT_EQ(pins.size(), 15u);
  EXPECT_EQ(pins.count(2), 0u);
  for (auto [irq, pin] : pins) EXPECT_EQ(pin, irq == 0 ? 2 : irq);
}

TEST_P(MpTable, LocalInterruptsAreThoseOfAPc) {
  ASSERT_EQ(entries_[4].size(), 2u);
  const Entry& external = entries_[4][0];
  EXPECT_EQ(external[1], 3);
  EXPECT_EQ(external[6], 0);
  EXPECT_EQ(external[7], 0);
  const Entry& nmi = entries_[4][1];
  EXPECT_EQ(nmi[1], 1);
  EXPECT_EQ(nmi[6], 0xff);
  EXPECT_EQ(nmi[7], 1);
}

INSTANTIATE_TEST_SUITE_P(Cpus, MpTable, ::testing::Values(1, 2, 8));

TEST(MpTableError, NumberOfCpusIsNamed) {
  GuestMemory memory = GuestMemory::Create(32 * kMiB).value();
  for (uint32_t cpus : {0u, 9u, 4294967295u}) {
    Status status = WriteMpTable(cpus, memory);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().message(), Format("%u CPUs, between 1 and 8 are possible", cpus));
  }
}

TEST(MpTableError, GuestWithoutLowMemoryIsAnError) {
  Status status = WriteMpTable(1, GuestMemory::Borrow({}));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message(),
            "the guest has no memory at 0x9fc00 for the 232 bytes of the MP table");
}

}  // namespace
}  // namespace cube::vmm
