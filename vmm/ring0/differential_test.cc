#include <capstone/capstone.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <optional>
#include <string>
#include <string_view>

#include "vmm/paging.h"
#include "vmm/ring0/instruction_table.h"
#include "vmm/ring0/interpreter.h"
#include "vmm/ring0/native_run.h"
#include "vmm/ring0/test_machine.h"
#include "vmm/segments.h"

// Each instruction against the processor itself: the same bytes on the same registers, flags and
// memory, natively and interpreted. CUBE_SEED and CUBE_BATCHES (of 256 cases, per encoding) in the
// environment make other or more of them.
namespace cube::vmm::ring0 {
namespace {

constexpr uint64_t kCodePhysical = 0x100000;
constexpr uint64_t kWindowPhysical = 0x110000;
constexpr int kMaxReports = 12;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text == nullptr ? otherwise : strtoull(text, nullptr, 0);
}

class Disassembler {
 public:
  Disassembler() { cs_open(CS_ARCH_X86, CS_MODE_64, &handle_); }
  ~Disassembler() { cs_close(&handle_); }
  std::string Text(std::span<const uint8_t> code, uint64_t address, bool operands) const {
    cs_insn* instruction;
    if (cs_disasm(handle_, code.data(), code.size(), address, 1, &instruction) != 1) return "?";
    std::string text = instruction->mnemonic;
    if (operands) text += std::string(" ") + instruction->op_str;
    cs_free(instruction, 1);
    return text;
  }

 private:
  csh handle_;
};

// The test machine with the window of native cases.
class WindowMachine {
 public:
  WindowMachine() {
    for (uint64_t at = 0; at < window::kCodeSize; at += kPageSize) {
      machine_.Map(window::kCode + at, kCodePhysical + at, TestMachine::kRights);
    }
    for (uint64_t at = 0; at < window::kSize; at += kPageSize) {
      uint64_t rights = at == 0 ? kEntryPresent : TestMachine::kRights;
      machine_.Map(window::kReadOnly + at, kWindowPhysical + at, rights | kEntryNoExecute);
    }
    // What a Linux process has.
    machine_.cpu().cs = 0x33;
    machine_.cpu().ss = 0x2b;
    memset(machine_.At(kCodePhysical), window::kHalt, window::kCodeSize);
  }

  Stop Run(const NativeCase& test, std::span<const uint8_t> pattern, bool cold) {
    Cpu& cpu = machine_.cpu();
    memcpy(memory(), pattern.data(), window::kSize);
    for (const NativeCase::Patch& patch : test.patches) {
      if (patch.address == 0) continue;
      memcpy(memory() + (patch.address - window::kReadOnly), &patch.value, 8);
    }
    uint64_t code = kCodePhysical + (test.before.rip - window::kCode);
    machine_.PutCode(code, {test.code.data(), test.length});
    if (cold) machine_.mmu().FlushAll(cpu);
    for (size_t i = 0; i < 16; ++i) cpu.r[i] = test.before.r[i];
    cpu.rip = test.before.rip;
    cpu.set_rflags(test.before.rflags | kFlagInterrupt);
    cpu.segment_base[kGsSegment] = test.before.gs_base;
    cpu.budget = 100;
    uint64_t instructions = cpu.instructions;
    Stop stop;
    do {
      stop = Interpret(cpu);
    } while (stop == Stop::kPoll);
    executed_ = cpu.instructions - instructions;
    std::array<uint8_t, 15> halts;
    halts.fill(window::kHalt);
    machine_.PutCode(code, {halts.data(), test.length});
    return stop;
  }
  const Cpu& cpu() { return machine_.cpu(); }
  uint8_t* memory() { return machine_.At(kWindowPhysical); }
  uint64_t executed() const { return executed_; }

 private:
  TestMachine machine_;
  uint64_t executed_ = 0;
};

class DifferentialTest : public testing::Test {
 protected:
  void SetUp() override {
    auto runner = NativeRunner::Create();
    ASSERT_TRUE(runner.ok()) << runner.error().message();
    runner_.emplace(std::move(runner).value());
    random_.seed(FromEnvironment("CUBE_SEED", 1));
    NewPattern();
  }

  void NewPattern() {
    auto pattern = runner_->pattern();
    for (size_t at = 0; at < pattern.size(); at += 8) {
      uint64_t value = Interesting(random_);
      // Runs of equal bytes, for comparisons that go on.
      if ((at & 0x300) == 0x300) value = 0;
      memcpy(pattern.data() + at, &value, 8);
    }
  }

  // Runs a batch of `encoding` and compares; counts what was handed off.
  void Batch(const Encoding& encoding) {
    auto cases = runner_->cases();
    for (NativeCase& test : cases) Generate(encoding, random_, &test);
    Status status = runner_->Run(cases.size());
    ASSERT_TRUE(status.ok()) << encoding.name << ": " << status.error().message();
    for (const NativeCase& test : cases) Compare(encoding, test);
  }

  void Compare(const Encoding& encoding, const NativeCase& test) {
    Stop stop = machine_.Run(test, runner_->pattern(), random_() % 4 == 0);
    ++compared_;
    if (stop == Stop::kHandOff || stop == Stop::kAssist) {
      // What raises #GP or #SS for an address is KVM's to raise.
      if (test.halted() || (test.vector != 13 && test.vector != 12)) ++handed_off_[encoding.name];
      return;
    }
    const Cpu& cpu = machine_.cpu();
    std::string differs;
    auto same = [&differs](const std::string& what, uint64_t native, uint64_t ours) {
      if (native == ours) return;
      differs += Format("  %-8s native %016lx interpreted %016lx\n", what.c_str(), native, ours);
    };
    for (size_t i = 0; i < 16; ++i) same("r" + std::to_string(i), test.after.r[i], cpu.r[i]);
    same("rip", test.after.rip, cpu.rip);
    uint64_t flags = kTestedFlags & ~(test.vector == 13 && test.halted()
                                          ? UndefinedFlags(encoding, test) : 0);
    same("flags", test.after.rflags & flags, cpu.rflags() & flags);
    same("gs base", test.after.gs_base, cpu.segment_base[kGsSegment]);
    same("halted", test.halted(), stop == Stop::kHalt);
    if (stop == Stop::kException) {
      same("vector", test.vector, cpu.exception.vector);
      // Which operand of CMPS is read first, and faults if both do, is the processor's choice.
      if (test.vector == 14 && encoding.name != std::string_view("cmps")) {
        same("address", test.fault_address, cpu.exception.address);
        // Not ring 3; and in the upper half the host has mapped something else.
        uint32_t mask = test.fault_address >> 63 != 0 ? ~5u : ~4u;
        same("error", test.error_code & mask, cpu.exception.error_code & mask);
      }
    }
    for (size_t i = 0; i < window::kSize; ++i) {
      if (test.memory[i] == machine_.memory()[i]) continue;
      same(Format("[%lx]", window::kReadOnly + i), test.memory[i], machine_.memory()[i]);
      break;
    }
    if (differs.empty()) return;
    ++differences_;
    if (++reported_[encoding.name] > 2 || static_cast<int>(differences_) > 20 * kMaxReports) return;
    std::string bytes;
    for (size_t i = 0; i < test.length; ++i) bytes += Format("%02x ", test.code[i]);
    std::string before;
    for (size_t i = 0; i < 16; ++i) before += Format(" r%zu=%lx", i, test.before.r[i]);
    ADD_FAILURE() << bytes << " "
                  << disassembler_.Text({test.code.data(), test.length}, test.before.rip, true)
                  << "\n" << differs << " before:" << before
                  << Format(" flags=%lx gs=%lx rip=%lx native vector %u at %lx error %x",
                            test.before.rflags, test.before.gs_base, test.before.rip, test.vector,
                            test.fault_address, test.error_code);
  }

  std::mt19937_64 random_;
  std::optional<NativeRunner> runner_;
  WindowMachine machine_;
  Disassembler disassembler_;
  uint64_t compared_ = 0;
  uint64_t differences_ = 0;
  std::map<std::string, int> reported_;
  std::map<std::string, uint64_t> handed_off_;
};

TEST_F(DifferentialTest, EveryEncoding) {
  uint64_t batches = FromEnvironment("CUBE_BATCHES", 10);
  for (uint64_t i = 0; i < batches; ++i) {
    NewPattern();
    for (const Encoding& encoding : Encodings()) {
      Batch(encoding);
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_EQ(differences_, 0u);
  std::string handed_off;
  for (const auto& [name, count] : handed_off_) {
    handed_off += Format(" %s:%lu", name.c_str(), count);
  }
  printf("%lu cases of %zu encodings; handed off:%s\n", compared_, Encodings().size(),
         handed_off.c_str());
  RecordProperty("cases", std::to_string(compared_));
  // Everything in the table is the engine's own.
  EXPECT_EQ(handed_off, "");
}

}  // namespace
}  // namespace cube::vmm::ring0
