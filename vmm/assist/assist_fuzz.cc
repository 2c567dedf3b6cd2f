// The assist layer on hostile guests: any instruction, registers, page tables, IDT, GDT, TSS and
// XSAVE area. There is no KVM below it: the ioctls of the one vCPU are answered from memory here.

#include <fuzzer/FuzzedDataProvider.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <vector>

#include "base/mapping.h"
#include "vmm/assist/instruction_assist.h"
#include "vmm/paging.h"
#include "vmm/segments.h"

namespace {

using namespace cube;
using namespace cube::vmm;

constexpr uint64_t kMemory = 64 << 10;
constexpr uint64_t kTables = 0x1000;  // four pages, one for each level
constexpr uint64_t kGdt = 0x5000, kIdt = 0x6000, kTss = 0x7000, kStack = 0x9000, kCode = 0xa000;
constexpr uint64_t kHandler = kCode + 0x800;
constexpr uint64_t kOperand = 0xb000;  // two pages
constexpr uint64_t kReadOnly = 0xd000, kUnmapped = 0xe000, kDevice = 0xf000;
constexpr uint64_t kXcr0 = 0xe7;
constexpr size_t kXsaveSize = 4096;

// The vCPU that KVM would keep.
struct {
  kvm_regs regs;
  kvm_sregs sregs;
  uint8_t xsave[kXsaveSize];
} vcpu;

// CPUID leaf 0xD of a processor with AVX-512: offset, size.
constexpr kvm_cpuid_entry2 Component(uint32_t index, uint32_t offset, uint32_t size) {
  kvm_cpuid_entry2 entry = {};
  entry.function = 0xd;
  entry.index = index;
  entry.eax = size;
  entry.ebx = offset;
  entry.ecx = index == 6 ? 2 : 0;
  return entry;
}
constexpr kvm_cpuid_entry2 kCpuid[] = {Component(2, 576, 256), Component(5, 832, 64),
                                       Component(6, 896, 512), Component(7, 1408, 1024)};

// What the layer carries out, so that random bytes need not find it: in each the operand, if it has
// one, is (%rsi).
struct Opcode {
  uint8_t size;
  uint8_t bytes[6];
};
constexpr Opcode kOpcodes[] = {
    {4, {0x48, 0x0f, 0xae, 0x26}},              // xsave64
    {3, {0x0f, 0xae, 0x36}},                    // xsaveopt
    {4, {0x48, 0x0f, 0xc7, 0x26}},              // xsavec64
    {4, {0x48, 0x0f, 0xc7, 0x2e}},              // xsaves64
    {4, {0x48, 0x0f, 0xae, 0x2e}},              // xrstor64
    {4, {0x48, 0x0f, 0xc7, 0x1e}},              // xrstors64
    {3, {0x0f, 0x01, 0xd0}},                    // xgetbv
    {3, {0x0f, 0xae, 0x16}},                    // ldmxcsr
    {3, {0x0f, 0xae, 0x1e}},                    // stmxcsr
    {2, {0xdb, 0xe3}},                          // fninit
    {2, {0xdb, 0xe2}},                          // fnclex
    {1, {0x9b}},                                // fwait
    {5, {0xf0, 0x48, 0x0f, 0xc7, 0x0e}},        // cmpxchg16b
    {5, {0xf3, 0x48, 0x0f, 0xb8, 0x06}},        // popcnt
    {6, {0xf2, 0x48, 0x0f, 0x38, 0xf1, 0x06}},  // crc32
    {3, {0x0f, 0x01, 0xca}},                    // clac
    {1, {0xcc}},                                // int3
    {2, {0xcd, 0x0d}},                          // int $13
    {4, {0x48, 0x0f, 0xc7, 0xf0}},              // rdrand
    {5, {0xf3, 0x48, 0x0f, 0xae, 0xd1}},        // wrfsbase
    {5, {0xf3, 0x48, 0x0f, 0xae, 0xc9}},        // rdgsbase
    {3, {0x0f, 0x03, 0x06}},                    // lsl
    {3, {0x0f, 0x02, 0x06}},                    // lar
    {3, {0x0f, 0x00, 0x26}},                    // verr
    {3, {0x0f, 0x00, 0x2e}},                    // verw
    {5, {0x66, 0x0f, 0x38, 0x82, 0x06}},        // invpcid
    {4, {0x66, 0x0f, 0xae, 0x36}},              // clwb
    {3, {0x0f, 0x0d, 0x06}},                    // prefetch
    {2, {0x0f, 0x0b}},                          // ud2
};

void Require(bool condition) {
  if (!condition) abort();
}

// An address that something lies at, or nearly.
uint64_t PickAddress(FuzzedDataProvider* input) {
  static constexpr uint64_t kPlaces[] = {0,         kTables,   kGdt,    kIdt,    kTss,   kStack, kCode,
                                         kOperand,  kReadOnly, kUnmapped, kDevice, kMemory,
                                         1ull << 47, ~0ull << 47, ~0xfffull};
  if (input->ConsumeBool()) return input->ConsumeIntegral<uint64_t>();
  uint64_t place = input->PickValueInArray(kPlaces);
  return place + input->ConsumeBool() * static_cast<uint64_t>(input->ConsumeIntegral<int8_t>()) *
                     (input->ConsumeBool() ? 64 : 1);
}

// The address that a guest would use, which an input that has run out names too; seldom another.
uint64_t Or(uint64_t usual, FuzzedDataProvider* input) {
  return input->ConsumeIntegral<uint8_t>() < 0xe0 ? usual : PickAddress(input);
}

void BuildGuest(const GuestMemory& memory) {
  auto put = [&](uint64_t address, uint64_t value) { Require(memory.WriteObject(address, value)); };
  constexpr uint64_t kAll = kEntryPresent | kEntryWritable | kEntryUser;
  for (uint64_t level = 0; level < 3; ++level) {
    put(kTables + level * 0x1000, (kTables + (level + 1) * 0x1000) | kAll);
  }
  for (uint64_t page = 0; page < kMemory; page += 0x1000) {
    uint64_t entry = page | kEntryPresent | (page == kReadOnly ? 0 : kEntryWritable);
    if (page == kUnmapped) entry = 0;
    if (page == kDevice) entry = 0xd0000000 | kAll;
    put(kTables + 0x3000 + page / 0x1000 * 8, entry);
  }
  put(kGdt + 0x10, LongModeCodeDescriptor(0));
  put(kGdt + 0x18, DataDescriptor(0));
  for (uint64_t vector = 0; vector < 32; ++vector) {
    put(kIdt + vector * 16, kHandler | 0x10 << 16 | 0x8eull << 40 | (vector == 8 ? 1ull << 32 : 0));
    put(kIdt + vector * 16 + 8, 0);
  }
  put(kTss + 0x24, kStack);
}

}  // namespace

extern "C" int __wrap_ioctl(int, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  switch (request) {
    case KVM_GET_REGS:
      memcpy(argument, &vcpu.regs, sizeof vcpu.regs);
      return 0;
    case KVM_SET_REGS:
      memcpy(&vcpu.regs, argument, sizeof vcpu.regs);
      return 0;
    case KVM_GET_SREGS:
      memcpy(argument, &vcpu.sregs, sizeof vcpu.sregs);
      return 0;
    case KVM_SET_SREGS:
      memcpy(&vcpu.sregs, argument, sizeof vcpu.sregs);
      return 0;
    case KVM_GET_XCRS: {
      auto* xcrs = static_cast<kvm_xcrs*>(argument);
      *xcrs = {};
      xcrs->nr_xcrs = 1;
      xcrs->xcrs[0].value = kXcr0;
      return 0;
    }
    case KVM_GET_XSAVE:
      memcpy(argument, vcpu.xsave, sizeof vcpu.xsave);
      return 0;
    case KVM_SET_XSAVE: {
      memcpy(vcpu.xsave, argument, sizeof vcpu.xsave);
      // What KVM would refuse.
      uint64_t header[8];
      memcpy(header, vcpu.xsave + 512, sizeof header);
      Require((header[0] & ~kXcr0) == 0);
      for (size_t i = 1; i < std::size(header); ++i) Require(header[i] == 0);
      uint32_t mxcsr;
      memcpy(&mxcsr, vcpu.xsave + 24, sizeof mxcsr);
      Require((mxcsr & ~0xffffu) == 0);
      return 0;
    }
    default:
      errno = EINVAL;
      return -1;
  }
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Mapping ram = Mapping::Map(kMemory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                                    -1, 0, "guest memory")
                           .value();
  memset(ram.data(), 0, kMemory);
  GuestMemory memory = GuestMemory::Borrow({{0, ram.span(), true}});
  BuildGuest(memory);
  FuzzedDataProvider input(data, size);

  vcpu.regs = {};
  __u64* const general = &vcpu.regs.rax;
  for (size_t i = 0; i < 16; ++i) general[i] = PickAddress(&input);
  // Most often an operand that can be reached, with some bytes, among them an XSAVE header.
  if (input.ConsumeIntegral<uint8_t>() < 0xc0) {
    vcpu.regs.rsi = kOperand;
    memory.Write(kOperand, input.ConsumeBytes<uint8_t>(input.ConsumeIntegralInRange(0, 64)));
    uint64_t header[3] = {input.ConsumeIntegral<uint8_t>(), 0, 0};
    if (input.ConsumeBool()) header[1] = uint64_t{1} << 63 | input.ConsumeIntegral<uint8_t>();
    if (input.ConsumeBool()) header[2] = input.ConsumeIntegral<uint64_t>();
    memory.WriteObject(kOperand + 512, header);
  }
  vcpu.regs.rip = Or(kCode, &input);
  vcpu.regs.rsp = Or(kStack, &input);
  vcpu.regs.rflags = kFlagReserved | (input.ConsumeBool() ? input.ConsumeIntegral<uint32_t>() : 0);
  vcpu.sregs = {};
  vcpu.sregs.cs = LongModeCode(0x10, 0);
  vcpu.sregs.ss = LongModeData(0x18, 0);
  vcpu.sregs.tr = LongModeTss(0x20, Or(kTss, &input));
  vcpu.sregs.cr0 = kCr0ProtectionEnable | kCr0Paging | kCr0WriteProtect;
  if (input.ConsumeBool()) vcpu.sregs.cr0 ^= input.ConsumeIntegral<uint32_t>() & ~kCr0Paging;
  vcpu.sregs.cr3 = Or(kTables, &input);
  vcpu.sregs.cr4 = kCr4PhysicalAddressExtension | kCr4OsFxsr | kCr4OsXsave | kCr4FsGsBase;
  if (input.ConsumeBool()) vcpu.sregs.cr4 ^= input.ConsumeIntegral<uint32_t>();
  vcpu.sregs.gdt = {PickAddress(&input), input.ConsumeIntegral<uint16_t>(), {}};
  vcpu.sregs.idt = {Or(kIdt, &input), 32 * 16 - 1, {}};
  memset(vcpu.xsave, 0, sizeof vcpu.xsave);
  uint64_t in_use = input.ConsumeIntegral<uint8_t>() & kXcr0;
  memcpy(vcpu.xsave + 512, &in_use, sizeof in_use);
  const uint32_t mxcsr[] = {0x1f80, 0xffff};
  memcpy(vcpu.xsave + 24, mxcsr, sizeof mxcsr);

  std::vector<uint8_t> code;
  if (input.ConsumeIntegral<uint8_t>() < 0xc0) {
    const Opcode& opcode = kOpcodes[input.ConsumeIntegralInRange<size_t>(0, std::size(kOpcodes) - 1)];
    code.assign(opcode.bytes, opcode.bytes + opcode.size);
  } else {
    code = input.ConsumeBytes<uint8_t>(15);
  }
  memory.Write(vcpu.regs.rip, code);
  // Holes in whatever the guest has told the processor of.
  for (int i = input.ConsumeIntegralInRange(0, 8); i > 0; --i) {
    uint64_t address = PickAddress(&input) % kMemory & ~7ull;
    memory.WriteObject(address, PickAddress(&input) | input.ConsumeIntegral<uint8_t>());
  }

  KvmVcpu kvm_vcpu(0, UniqueFd(), Mapping::Map(4096, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, "run area")
                                      .value(),
                   kXsaveSize, 0);
  const auto before = vcpu;
  InstructionAssist assist(memory, XsaveLayout::FromCpuid(kCpuid));
  auto outcome = assist.CarryOut(&kvm_vcpu);
  // No guest can make the layer fail: an error stops the VM with a message about Cube.
  Require(outcome.ok());
  Require(kvm_vcpu.FlushRegistersNow().ok());
  Require(vcpu.sregs.cs.dpl == 0 && vcpu.sregs.cs.l == 1);
  if (*outcome != InstructionAssist::Outcome::kDone) {
    Require(memcmp(&before.regs, &vcpu.regs, sizeof vcpu.regs) == 0);
    Require(memcmp(&before.sregs, &vcpu.sregs, sizeof vcpu.sregs) == 0);
    Require(memcmp(before.xsave, vcpu.xsave, sizeof vcpu.xsave) == 0);
  }
  return 0;
}
