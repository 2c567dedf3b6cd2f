#include "vmm/loader/elf_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "vmm/loader/test_images.h"
#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

using ::testing::HasSubstr;
using testing::ElfHeader;
using testing::Image;
using testing::MakeElf;
using testing::MakeVmlinux;
using testing::ProgramHeader;

class ElfLoader : public ::testing::Test {
 protected:
  std::string ErrorOf(std::span<const uint8_t> file) {
    Result<LoadedKernel> kernel = LoadElf(file, memory_);
    return kernel.ok() ? "no error" : kernel.error().message();
  }
  std::span<uint8_t> At(uint64_t address, uint64_t size) { return *memory_.Slice(address, size); }

  GuestMemory memory_ = GuestMemory::Create(32 * kMiB).value();
};

TEST_F(ElfLoader, LoadsSegmentsAtTheirPhysicalAddresses) {
  Image file = MakeVmlinux();
  Result<LoadedKernel> kernel = LoadElf(file, memory_);
  ASSERT_TRUE(kernel.ok()) << kernel.error().message();
  EXPECT_EQ(kernel->entry, 0x100000u);
  EXPECT_EQ(kernel->start, 0x100000u);
  EXPECT_EQ(kernel->end, 0x200064u);
  EXPECT_FALSE(kernel->header.has_value());
  auto content = file.begin() + static_cast<ptrdiff_t>(ProgramHeader(file, 0).p_offset);
  EXPECT_TRUE(std::equal(content, content + 600, At(0x100000, 600).begin()));
  EXPECT_EQ(At(0x200000, 100)[99], 0xcc);
  EXPECT_EQ(At(0x200064, 1)[0], 0);
}

TEST_F(ElfLoader, BssIsZeroInUsedMemoryToo) {
  std::span<uint8_t> used = At(0x100000, 0x10000);
  std::fill(used.begin(), used.end(), 0xee);
  Image file = MakeElf(0x100800, {{0x100800, Image(0x100, 0x90), 0x3000}});
  ASSERT_EQ(ErrorOf(file), "no error");
  EXPECT_EQ(used[0x7ff], 0xee);
  EXPECT_EQ(used[0x8ff], 0x90);
  EXPECT_TRUE(std::all_of(used.begin() + 0x900, used.begin() + 0x3800,
                          [](uint8_t byte) { return byte == 0; }));
  EXPECT_EQ(used[0x3800], 0xee);
}

TEST_F(ElfLoader, LargeBssAllocatesNoMemory) {
  auto private_kib = [] {
    std::ifstream file("/proc/self/smaps_rollup");
    for (std::string word; file >> word;) {
      if (word == "Anonymous:" && file >> word) return std::stol(word);
    }
    return -1L;
  };
  Image file = MakeElf(0x100000, {{0x100000, Image(0x100, 0x90), 24 * kMiB}});
  long before = private_kib();
  ASSERT_GE(before, 0);
  ASSERT_EQ(ErrorOf(file), "no error");
  EXPECT_LT(private_kib() - before, 4096);
}

TEST_F(ElfLoader, PositionIndependentExecutableIsTaken) {
  Image file = MakeVmlinux();
  ElfHeader(file).e_type = ET_DYN;
  EXPECT_EQ(ErrorOf(file), "no error");
}

TEST_F(ElfLoader, OtherProgramHeadersAndEmptySegmentsAreSkipped) {
  Image file = MakeElf(0x100000, {{0x100000, Image(16, 0x90), 16}, {0, {}, 0}, {0, {}, 4096}});
  ProgramHeader(file, 2).p_type = PT_NOTE;
  EXPECT_EQ(ErrorOf(file), "no error");
}

TEST_F(ElfLoader, OtherKindsOfFileAreNamed) {
  EXPECT_EQ(ErrorOf({}), "not an ELF file");
  Image file = MakeVmlinux();
  EXPECT_EQ(ErrorOf(std::span(file).first(20)),
            "truncated: the ELF header has 64 bytes, the file has 20");
  ElfHeader(file).e_ident[EI_CLASS] = ELFCLASS32;
  EXPECT_EQ(ErrorOf(file), "ELF class 1, only 64-bit (2) is supported");
  file = MakeVmlinux();
  ElfHeader(file).e_machine = EM_AARCH64;
  EXPECT_EQ(ErrorOf(file), "ELF for machine 183, only x86-64 (62) is supported");
  file = MakeVmlinux();
  ElfHeader(file).e_type = ET_REL;
  EXPECT_EQ(ErrorOf(file), "ELF of type 1, only executables (2, 3) are supported");
}

TEST_F(ElfLoader, BadProgramHeaderTablesAreErrors) {
  Image file = MakeVmlinux();
  ElfHeader(file).e_phentsize = 32;
  EXPECT_EQ(ErrorOf(file), "ELF program headers of 32 bytes, they must have 56");
  file = MakeVmlinux();
  ElfHeader(file).e_phnum = 0xffff;
  EXPECT_EQ(ErrorOf(file), "ELF with 65535 program headers, between 1 and 64 are supported");
  ElfHeader(file).e_phnum = 0;
  EXPECT_EQ(ErrorOf(file), "ELF with 0 program headers, between 1 and 64 are supported");
  for (uint64_t offset : {file.size() - 111, file.size() + 1, ~uint64_t{0}}) {
    file = MakeVmlinux();
    ElfHeader(file).e_phoff = offset;
    EXPECT_THAT(ErrorOf(file), HasSubstr("truncated: 112 bytes of program headers at byte 0x"));
  }
  file = MakeVmlinux();
  ProgramHeader(file, 0).p_type = PT_NOTE;
  ProgramHeader(file, 1).p_type = PT_NOTE;
  EXPECT_EQ(ErrorOf(file), "ELF without a segment to load");
}

TEST_F(ElfLoader, SegmentsBeyondTheFileAreErrors) {
  Image file = MakeVmlinux();
  EXPECT_EQ(ErrorOf(std::span(file).first(file.size() - 1)),
            "truncated: ELF segment 1 has 0x64 bytes at byte 0x308, the file has 0x36b");
  ProgramHeader(file, 1).p_offset = ~uint64_t{0};
  EXPECT_THAT(ErrorOf(file), HasSubstr("at byte 0xffffffffffffffff, the file has 0x36c"));
  file = MakeVmlinux();
  ProgramHeader(file, 1).p_filesz = 0x65;
  EXPECT_EQ(ErrorOf(file),
            "ELF segment 1 has 0x65 bytes in the file, more than its 0x64 in memory");
}

TEST_F(ElfLoader, SegmentsOutsideUsableRamAreErrors) {
  for (uint64_t address : {uint64_t{0}, kBootParamsAddress, kHighMemoryStart - 1}) {
    Image file = MakeElf(address, {{address, Image(16, 0x90), 16}});
    EXPECT_THAT(ErrorOf(file), HasSubstr("below 1 MiB"));
    EXPECT_THAT(ErrorOf(file), HasSubstr(Format("0x%llx", (unsigned long long)address)));
  }
  // Past the end of RAM, into the hole (the mailbox is memory, but not RAM), above it, wrapping.
  for (uint64_t address : {32 * kMiB - 15, 32 * kMiB, uint64_t{abi::kMailboxAddress}, kHoleEnd,
                           ~uint64_t{0} - 7}) {
    Image file = MakeElf(address, {{address, Image(16, 0x90), 16}});
    EXPECT_EQ(ErrorOf(file), Format("ELF segment 0 of 0x10 bytes at 0x%llx is outside the guest's "
                                    "low RAM, which ends at 0x2000000",
                                    static_cast<unsigned long long>(address)));
  }
  Image file = MakeElf(0x100000, {{0x100000, Image(16, 0x90), ~uint64_t{0}}});
  EXPECT_THAT(ErrorOf(file), HasSubstr("segment 0 of 0xffffffffffffffff bytes at 0x100000"));
}

TEST_F(ElfLoader, OverlappingSegmentsAreErrors) {
  Image file = MakeElf(0x300000, {{0x300000, Image(16, 0x90), 0x1000},
                                  {0x100000, Image(16, 0x90), 0x200001}});
  EXPECT_EQ(ErrorOf(file), "ELF segment 0 at 0x300000 overlaps segment 1, which ends at 0x300001");
  EXPECT_EQ(At(0x300000, 1)[0], 0) << "something was loaded before the error";
}

TEST_F(ElfLoader, EntryMustBeInBytesOfTheFile) {
  // In no segment; in bss; virtual instead of physical.
  for (uint64_t entry : {uint64_t{0x50000}, uint64_t{0x100258}, uint64_t{0xffffffff80100000}}) {
    Image file = MakeVmlinux();
    ElfHeader(file).e_entry = entry;
    EXPECT_EQ(ErrorOf(file), Format("ELF entry 0x%llx is not in a loaded segment",
                                    static_cast<unsigned long long>(entry)));
  }
}

}  // namespace
}  // namespace cube::vmm
