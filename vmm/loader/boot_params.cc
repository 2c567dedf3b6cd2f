#include "vmm/loader/boot_params.h"

#include <asm/bootparam.h>

#include <algorithm>
#include <cstddef>
#include <string>

#include "vmm/loader/placement.h"
#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

constexpr uint32_t kE820Ram = 1;
constexpr uint32_t kE820Reserved = 2;
constexpr uint64_t kVideoMemoryStart = 0xa0000;
constexpr uint8_t kUndefinedLoader = 0xff;

struct RngSeedNode {
  uint64_t next;
  uint32_t type;
  uint32_t size;
  uint8_t seed[kRngSeedSize];
};
static_assert(offsetof(RngSeedNode, seed) == sizeof(setup_data));
static_assert(sizeof(RngSeedNode) <= kSetupDataMaxSize);
static_assert(sizeof(boot_params) == kPageSize);

class E820Table {
 public:
  explicit E820Table(boot_params* params) : params_(params) {}

  Status Add(uint64_t start, uint64_t end, uint32_t type) {
    if (start >= end) return OkStatus();
    if (params_->e820_entries == E820_MAX_ENTRIES_ZEROPAGE) {
      return Errorf("the guest has more than the %d areas of memory a boot memory map can list",
                    E820_MAX_ENTRIES_ZEROPAGE);
    }
    params_->e820_table[params_->e820_entries++] = {start, end - start, type};
    return OkStatus();
  }

  // RAM, but for the first page, the MP table and setup data, and above them what every PC keeps for
  // video memory and its BIOS. Few areas: while Linux maps its memory it goes through all of them
  // 10,000 times, 8 instructions each.
  Status AddRam(uint64_t start, uint64_t end) {
    CUBE_TRY(Add(std::max(start, kLowMemoryStart), std::min(end, kMpTableAddress), kE820Ram));
    CUBE_TRY(Add(std::max(start, kMpTableAddress), std::min(end, kVideoMemoryStart),
                 kE820Reserved));
    return Add(std::max(start, kHighMemoryStart), end, kE820Ram);
  }

 private:
  boot_params* params_;
};

setup_header MadeUpHeader() {
  setup_header header = {};
  header.boot_flag = 0xaa55;
  header.header = 0x53726448;  // "HdrS"
  header.version = 0x020f;
  header.kernel_alignment = 2 * kMiB;
  header.initrd_addr_max = kInitrdAddressMax;
  header.cmdline_size = kCommandLineMaxSize - 1;
  return header;
}

Status CheckCommandLine(std::string_view line, const setup_header& header) {
  // The zero that ends it is in kCommandLineMaxSize, but not in cmdline_size.
  uint64_t limit = std::min<uint64_t>(kCommandLineMaxSize - 1, header.cmdline_size);
  if (line.size() > limit) {
    return Errorf("the kernel command line has %zu bytes, at most %llu are possible", line.size(),
                  static_cast<unsigned long long>(limit));
  }
  size_t zero = line.find('\0');
  if (zero != line.npos) {
    return Errorf("the kernel command line has a zero byte at %zu of its %zu bytes", zero,
                  line.size());
  }
  return OkStatus();
}

}  // namespace

Status WriteBootParams(const BootParamsConfig& config, const LoadedKernel& kernel,
                       const GuestMemory& memory) {
  boot_params params = {};
  params.hdr = kernel.header ? *kernel.header : MadeUpHeader();
  CUBE_TRY(CheckCommandLine(config.command_line, params.hdr));
  params.hdr.type_of_loader = kUndefinedLoader;
  params.hdr.loadflags |= LOADED_HIGH;
  // That flag says the kernel was moved to a random address, which nobody did here.
  params.hdr.loadflags &= static_cast<uint8_t>(~KASLR_FLAG);
  params.hdr.hardware_subarch = X86_SUBARCH_PC;
  params.hdr.cmd_line_ptr = kCommandLineAddress;
  params.hdr.setup_data = kSetupDataAddress;
  const Initrd initrd = config.initrd.value_or(Initrd{0, 0});
  params.hdr.ramdisk_image = static_cast<uint32_t>(initrd.address);
  params.ext_ramdisk_image = static_cast<uint32_t>(initrd.address >> 32);
  params.hdr.ramdisk_size = static_cast<uint32_t>(initrd.size);
  params.ext_ramdisk_size = static_cast<uint32_t>(initrd.size >> 32);

  E820Table table(&params);
  for (const MemoryRegion& region : memory.regions()) {
    if (!region.ram) continue;
    CUBE_TRY(table.AddRam(region.guest_address, region.guest_address + region.host.size()));
  }

  RngSeedNode node = {.next = 0, .type = SETUP_RNG_SEED, .size = kRngSeedSize};
  std::copy(config.rng_seed.begin(), config.rng_seed.end(), node.seed);
  const std::string line(config.command_line);
  CUBE_TRY(PlaceObject(memory, kBootParamsAddress, params, "boot parameters"));
  CUBE_TRY(PlaceObject(memory, kSetupDataAddress, node, "random seed"));
  return PlaceBytes(memory, kCommandLineAddress,
                    {reinterpret_cast<const uint8_t*>(line.c_str()), line.size() + 1},
                    "command line");
}

}  // namespace cube::vmm
