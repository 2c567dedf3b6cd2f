#include "vmm/loader/boot_params.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <tuple>
#include <vector>

#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

using ::testing::ElementsAre;
using Area = std::tuple<uint64_t, uint64_t, uint32_t>;

constexpr std::array<uint8_t, kRngSeedSize> kSeed = {1, 2, 3, 4, 5};

GuestMemory Memory(uint64_t size = 64 * kMiB) { return GuestMemory::Create(size).value(); }

boot_params Written(const BootParamsConfig& config, const LoadedKernel& kernel,
                    const GuestMemory& memory) {
  Status status = WriteBootParams(config, kernel, memory);
  EXPECT_TRUE(status.ok()) << status.error().message();
  return memory.ReadObject<boot_params>(kBootParamsAddress).value();
}

std::vector<Area> E820(const boot_params& params) {
  std::vector<Area> areas;
  for (int i = 0; i < params.e820_entries; ++i) {
    boot_e820_entry entry = params.e820_table[i];
    // Braces make copies: nothing can refer to a field of a packed structure.
    areas.emplace_back(uint64_t{entry.addr}, uint64_t{entry.size}, uint32_t{entry.type});
  }
  return areas;
}

std::string ErrorOf(const BootParamsConfig& config, const LoadedKernel& kernel = {}) {
  Status status = WriteBootParams(config, kernel, Memory());
  return status.ok() ? "no error" : status.error().message();
}

TEST(BootParams, SmallGuestHasTwoAreasOfRam) {
  boot_params params = Written({.rng_seed = kSeed}, {}, Memory());
  EXPECT_THAT(E820(params),
              ElementsAre(Area(0x1000, 0x9ec00, 1), Area(0x9fc00, 0x400, 2),
                          Area(kMiB, 63 * kMiB, 1)));
}

TEST(BootParams, LargeGuestHasRamAboveTheHoleAndNoMailbox) {
  boot_params params = Written({.rng_seed = kSeed}, {}, Memory(6 * kGiB));
  EXPECT_THAT(E820(params),
              ElementsAre(Area(0x1000, 0x9ec00, 1), Area(0x9fc00, 0x400, 2),
                          Area(kMiB, kHoleStart - kMiB, 1),
                          Area(kHoleEnd, 6 * kGiB - kHoleStart, 1)));
}

TEST(BootParams, HeaderIsMadeUpForAVmlinux) {
  boot_params params = Written({.rng_seed = kSeed}, {}, Memory());
  EXPECT_EQ(params.hdr.boot_flag, 0xaa55);
  EXPECT_EQ(params.hdr.header, 0x53726448u);
  EXPECT_EQ(params.hdr.version, 0x020f);
  EXPECT_EQ(params.hdr.type_of_loader, 0xff);
  EXPECT_EQ(params.hdr.loadflags, LOADED_HIGH);
  EXPECT_EQ(params.hdr.cmd_line_ptr, kCommandLineAddress);
  EXPECT_EQ(params.hdr.ramdisk_image, 0u);
  EXPECT_EQ(params.hdr.ramdisk_size, 0u);
  EXPECT_EQ(params.sentinel, 0);
}

TEST(BootParams, HeaderOfABzImageIsKeptButForTheLoadersFields) {
  LoadedKernel kernel;
  kernel.header = setup_header{};
  kernel.header->version = 0x020c;
  kernel.header->init_size = 0x1234000;
  kernel.header->cmdline_size = 2047;
  kernel.header->loadflags = KASLR_FLAG | QUIET_FLAG;
  kernel.header->setup_data = 0xdeadbeef000;
  kernel.header->hardware_subarch = X86_SUBARCH_XEN;
  boot_params params = Written({.rng_seed = kSeed}, kernel, Memory());
  EXPECT_EQ(params.hdr.version, 0x020c);
  EXPECT_EQ(params.hdr.init_size, 0x1234000u);
  EXPECT_EQ(params.hdr.type_of_loader, 0xff);
  EXPECT_EQ(params.hdr.loadflags, LOADED_HIGH | QUIET_FLAG);
  EXPECT_EQ(params.hdr.setup_data, kSetupDataAddress);
  EXPECT_EQ(params.hdr.hardware_subarch, 0u);
}

TEST(BootParams, InitrdIsGivenInTwoHalves) {
  Initrd initrd = {.address = 0x1'23456000, .size = 0x2'0000abcd};
  boot_params params = Written({.initrd = initrd, .rng_seed = kSeed}, {}, Memory());
  EXPECT_EQ(params.hdr.ramdisk_image, 0x23456000u);
  EXPECT_EQ(params.ext_ramdisk_image, 1u);
  EXPECT_EQ(params.hdr.ramdisk_size, 0xabcdu);
  EXPECT_EQ(params.ext_ramdisk_size, 2u);
}

TEST(BootParams, RandomSeedIsANodeOfSetupData) {
  GuestMemory memory = Memory();
  boot_params params = Written({.rng_seed = kSeed}, {}, memory);
  ASSERT_EQ(params.hdr.setup_data, kSetupDataAddress);
  setup_data node = {};
  ASSERT_TRUE(memory.Read(kSetupDataAddress, {reinterpret_cast<uint8_t*>(&node), sizeof node}));
  EXPECT_EQ(node.next, 0u);
  EXPECT_EQ(node.type, static_cast<uint32_t>(SETUP_RNG_SEED));
  EXPECT_EQ(node.len, 32u);
  using Seed = std::array<uint8_t, kRngSeedSize>;
  EXPECT_EQ(memory.ReadObject<Seed>(kSetupDataAddress + sizeof node), kSeed);
}

TEST(BootParams, CommandLineEndsWithAZeroEvenInUsedMemory) {
  GuestMemory memory = Memory();
  memory.Write(kCommandLineAddress, std::vector<uint8_t>(100, 'z'));
  Written({.command_line = "console=ttyS0 panic=-1", .rng_seed = kSeed}, {}, memory);
  auto slice = memory.Slice(kCommandLineAddress, kCommandLineMaxSize);
  EXPECT_STREQ(reinterpret_cast<const char*>(slice->data()), "console=ttyS0 panic=-1");
}

TEST(BootParams, CommandLineMayFillItsSpaceButNoMore) {
  EXPECT_EQ(ErrorOf({.command_line = std::string(2047, 'a'), .rng_seed = kSeed}), "no error");
  EXPECT_EQ(ErrorOf({.command_line = std::string(2048, 'a'), .rng_seed = kSeed}),
            "the kernel command line has 2048 bytes, at most 2047 are possible");
  LoadedKernel kernel;
  kernel.header = setup_header{};
  kernel.header->cmdline_size = 255;
  EXPECT_EQ(ErrorOf({.command_line = std::string(256, 'a'), .rng_seed = kSeed}, kernel),
            "the kernel command line has 256 bytes, at most 255 are possible");
}

TEST(BootParams, CommandLineWithAZeroByteIsAnError) {
  EXPECT_EQ(ErrorOf({.command_line = std::string_view("a\0b", 3), .rng_seed = kSeed}),
            "the kernel command line has a zero byte at 1 of its 3 bytes");
}

TEST(BootParams, GuestWithoutLowMemoryIsAnError) {
  std::vector<uint8_t> page(kPageSize);
  GuestMemory memory = GuestMemory::Borrow({{0x100000, page, true}});
  Status status = WriteBootParams({.rng_seed = kSeed}, {}, memory);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message(),
            "the guest has no memory at 0x7000 for the 4096 bytes of the boot parameters");
}

TEST(BootParams, MoreAreasThanTheTableHoldsIsAnError) {
  std::vector<uint8_t> page(kPageSize);
  std::vector<MemoryRegion> regions;
  for (uint64_t i = 0; i < 129; ++i) regions.push_back({kMiB + i * 2 * kPageSize, page, true});
  Status status = WriteBootParams({.rng_seed = kSeed}, {}, GuestMemory::Borrow(regions));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message(),
            "the guest has more than the 128 areas of memory a boot memory map can list");
}

}  // namespace
}  // namespace cube::vmm
