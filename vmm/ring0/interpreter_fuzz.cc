#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "vmm/paging.h"
#include "vmm/ring0/interpreter.h"
#include "vmm/ring0/test_machine.h"
#include "vmm/segments.h"

// Random code on random registers and page tables, tables and code within its own reach: nothing of
// it may leave the guest's memory or run without end.
namespace {

using namespace cube::vmm;
using namespace cube::vmm::ring0;

constexpr uint64_t kVirtual[] = {0x20000000, 0xffff888000000000};
constexpr uint64_t kPages = 8;
constexpr uint64_t kCode = 0x100000;

// The state comes of a seed in the input, so that most of the input is code.
class Input {
 public:
  explicit Input(uint64_t seed) : random_(seed) {}
  uint64_t Take(size_t bytes) { return random_() >> (64 - 8 * bytes); }

 private:
  std::mt19937_64 random_;
};

// An address of what is mapped, of its edges, or any.
uint64_t Pointer(Input* input) {
  uint64_t choice = input->Take(3);
  uint64_t offset = choice >> 8 & (kPages * kPageSize - 1);
  switch (choice & 7) {
    case 0: return input->Take(8);
    case 1: return choice >> 8 & 255;
    default: return kVirtual[choice & 1] + offset;
  }
}

}  // namespace

// Long inputs from the start: short ones are hardly a program.
extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments) {
  static std::vector<char*> longer(*arguments, *arguments + *count);
  static char option[] = "-len_control=0";
  longer.push_back(option);
  longer.push_back(nullptr);
  ++*count;
  *arguments = longer.data();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 5) return 0;
  uint32_t seed;
  memcpy(&seed, data, 4);
  Input input(seed);
  std::span<const uint8_t> code(data + 4, size - 4);
  auto machine = std::make_unique<TestMachine>();
  Cpu& cpu = machine->cpu();
  constexpr uint64_t kPhysical[] = {kCode, kCode + kPageSize, 0x110000, 0x111000,
                                    TestMachine::kRoot, TestMachine::kRoot + kPageSize,
                                    TestMachine::kMmio, 0x1ff000};
  for (uint64_t base : kVirtual) {
    for (uint64_t i = 0; i < kPages; ++i) {
      uint64_t rights = input.Take(1);
      // Mostly as a kernel would.
      uint64_t flags = (rights & 0xf) == 0 ? rights >> 4 : TestMachine::kRights | (rights & 4) << 6;
      machine->Map(base + i * kPageSize, kPhysical[i], flags);
    }
  }
  // Tables of the tables themselves, as user mode's.
  machine->Map(0x40000000, 0x2000, TestMachine::kRights | kEntryUser);
  machine->tables().Rebuild({TestMachine::kRoot});
  machine->mmu().Refresh(cpu);
  uint64_t switches = input.Take(2);
  if ((switches & 1) != 0) cpu.cr4 |= kCr4Smap;
  if ((switches & 2) != 0) cpu.cr4 |= kCr4Smep;
  if ((switches & 4) != 0) cpu.cr0 &= ~kCr0WriteProtect;
  cpu.tsc_known = true;
  cpu.pause_cost = 10;
  cpu.set_rflags(input.Take(2) & 0xcd5);
  for (size_t i = 0; i < 16; ++i) cpu.r[i] = Pointer(&input);
  // Long strings only now and then: they take their time.
  if ((switches >> 8 & 15) != 0) cpu.r[1] &= 0xfff;
  cpu.segment_base[kGsSegment] = (switches & 8) != 0 ? Pointer(&input) : 0;
  uint64_t at = (switches & 16) != 0 ? kPageSize - 24 : 0;
  machine->PutCode(kCode + at, code.first(std::min<size_t>(code.size(), 2 * kPageSize - at)));
  cpu.rip = kVirtual[switches >> 5 & 1] + at;
  // Exceptions and hand-offs are skipped over, as if somebody had dealt with them.
  for (int i = 0; i < 24; ++i) {
    cpu.budget = 50;
    uint64_t before = cpu.rip;
    Stop stop = Interpret(cpu);
    if (stop == Stop::kNone) abort();
    if (stop == Stop::kPoll && cpu.rip == before) continue;
    if (stop != Stop::kPoll) cpu.rip += 1 + i % 7;
  }
  if (cpu.r[kZeroRegister] != 0) abort();
  if ((cpu.rflags() & 2) == 0) abort();
  return 0;
}
