// Every instruction of the assist layer, run in ring 0 of a micro guest. Where KVM executes ring 0
// itself the same tests hold: the processor is then what they check.
#include "vmm/assist/instruction_assist.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "vmm/assist/micro_guest.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

using Kind = MicroGuest::Exit::Kind;
using Code = std::vector<uint8_t>;

constexpr uint64_t kData = MicroGuest::kKernelData;

class InstructionAssistTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto kvm = Kvm::Open();
    ASSERT_TRUE(kvm.ok()) << kvm.error().message();
    auto guest = MicroGuest::Create(*kvm, true);
    ASSERT_TRUE(guest.ok()) << guest.error().message();
    guest_ = std::move(guest).value();
  }

  // Runs `code` and then `out %al, $0xf4`, with registers as `prepare` sets them.
  MicroGuest::Exit Run(Code code, const std::function<void(kvm_regs&)>& prepare = {}) {
    code.insert(code.end(), {0xe6, MicroGuest::kDonePort, 0xf4});
    guest_->SetKernelCode(code);
    EXPECT_TRUE(guest_->StartKernel().ok());
    if (prepare) prepare(*guest_->vcpu().mutable_regs().value());
    auto exit = guest_->Run();
    EXPECT_TRUE(exit.ok()) << exit.error().message();
    return exit.ok() ? *exit : MicroGuest::Exit{};
  }
  const kvm_regs& regs() { return *guest_->vcpu().regs().value(); }
  const kvm_sregs& sregs() { return *guest_->vcpu().sregs().value(); }
  uint64_t Frame(int word) { return guest_->Peek<uint64_t>(regs().rsp + 8u * static_cast<unsigned>(word)); }

  std::unique_ptr<MicroGuest> guest_;
};

#define EXPECT_DONE(exit) EXPECT_EQ(static_cast<int>((exit).kind), static_cast<int>(Kind::kDone))

TEST_F(InstructionAssistTest, PopcntInAllWidths) {
  EXPECT_DONE(Run({0xf3, 0x48, 0x0f, 0xb8, 0xc1}, [](kvm_regs& r) {
    r.rcx = 0xf0f0000000000001;
    r.rflags |= kFlagsArithmetic;
  }));
  EXPECT_EQ(regs().rax, 9u);
  EXPECT_EQ(regs().rflags & kFlagsArithmetic, 0u);
  // 32 bits zero the upper half, 16 bits leave it.
  EXPECT_DONE(Run({0xf3, 0x0f, 0xb8, 0xc1}, [](kvm_regs& r) { r.rax = ~0ull; r.rcx = 3ull << 31; }));
  EXPECT_EQ(regs().rax, 1u);
  EXPECT_DONE(Run({0x66, 0xf3, 0x0f, 0xb8, 0xc1}, [](kvm_regs& r) { r.rax = ~0ull; r.rcx = 0x70007; }));
  EXPECT_EQ(regs().rax, 0xffffffffffff0003);
  // A zero source sets ZF. From memory: popcnt 8(%rbx,%rcx,2), %rax
  guest_->Poke<uint64_t>(kData + 16, 0);
  EXPECT_DONE(Run({0xf3, 0x48, 0x0f, 0xb8, 0x44, 0x4b, 0x08},
                  [](kvm_regs& r) { r.rbx = kData; r.rcx = 4; }));
  EXPECT_EQ(regs().rflags & kFlagZero, kFlagZero);
}

TEST_F(InstructionAssistTest, Crc32MatchesTheProcessor) {
  // crc32q %rcx, %rax
  EXPECT_DONE(Run({0xf2, 0x48, 0x0f, 0x38, 0xf1, 0xc1}, [](kvm_regs& r) {
    r.rax = 0x12345678;
    r.rcx = 0xdeadbeefcafef00d;
  }));
  uint64_t expected = 0x12345678;
  asm("crc32q %1, %0" : "+r"(expected) : "r"(0xdeadbeefcafef00dull));
  EXPECT_EQ(regs().rax, expected);
  // crc32b %cl, %eax
  EXPECT_DONE(Run({0xf2, 0x0f, 0x38, 0xf0, 0xc1}, [](kvm_regs& r) { r.rax = 7; r.rcx = 0xa5; }));
  uint32_t narrow = 7;
  asm("crc32b %1, %0" : "+r"(narrow) : "q"(static_cast<uint8_t>(0xa5)));
  EXPECT_EQ(regs().rax, narrow);
}

TEST_F(InstructionAssistTest, Cmpxchg16bExchangesOrLoads) {
  const Code code = {0xf0, 0x48, 0x0f, 0xc7, 0x0e};  // lock cmpxchg16b (%rsi)
  auto prepare = [](kvm_regs& r) {
    r.rsi = kData;
    r.rax = 1;
    r.rdx = 2;
    r.rbx = 3;
    r.rcx = 4;
  };
  guest_->Poke<uint64_t>(kData, 1);
  guest_->Poke<uint64_t>(kData + 8, 2);
  EXPECT_DONE(Run(code, prepare));
  EXPECT_TRUE(regs().rflags & kFlagZero);
  EXPECT_EQ(guest_->Peek<uint64_t>(kData), 3u);
  EXPECT_EQ(guest_->Peek<uint64_t>(kData + 8), 4u);
  EXPECT_DONE(Run(code, prepare));
  EXPECT_FALSE(regs().rflags & kFlagZero);
  EXPECT_EQ(regs().rax, 3u);
  EXPECT_EQ(regs().rdx, 4u);
  // Unaligned: #GP(0).
  auto exit = Run(code, [&](kvm_regs& r) { prepare(r); r.rsi += 8; });
  EXPECT_EQ(static_cast<int>(exit.kind), static_cast<int>(Kind::kException));
  EXPECT_EQ(exit.vector, kVectorGeneralProtection);
  EXPECT_EQ(Frame(1), MicroGuest::kKernelCode);
  // Not mapped: #PF with the write bit and the address.
  exit = Run(code, [&](kvm_regs& r) { prepare(r); r.rsi = MicroGuest::kUnmappedPage; });
  EXPECT_EQ(exit.vector, kVectorPageFault);
  EXPECT_EQ(sregs().cr2, MicroGuest::kUnmappedPage);
  EXPECT_EQ(Frame(0) & kFaultPresent, 0u);
  // Read-only, with CR0.WP: #PF, present and write.
  exit = Run(code, [&](kvm_regs& r) { prepare(r); r.rsi = MicroGuest::kReadOnlyPage; });
  EXPECT_EQ(exit.vector, kVectorPageFault);
  EXPECT_EQ(Frame(0), kFaultPresent | kFaultWrite);
}

TEST_F(InstructionAssistTest, FlagsForUserAccess) {
  EXPECT_DONE(Run({0x0f, 0x01, 0xcb}));  // stac
  EXPECT_TRUE(regs().rflags & kFlagAlignmentCheck);
  EXPECT_DONE(Run({0x0f, 0x01, 0xcb, 0x0f, 0x01, 0xca}));  // stac; clac
  EXPECT_FALSE(regs().rflags & kFlagAlignmentCheck);
}

TEST_F(InstructionAssistTest, HintsDoNothing) {
  EXPECT_DONE(Run({0x9b}));                           // fwait
  EXPECT_DONE(Run({0x66, 0x0f, 0xae, 0x3e}, [](kvm_regs& r) { r.rsi = kData; }));  // clflushopt
  EXPECT_DONE(Run({0x0f, 0x0d, 0x0e}, [](kvm_regs& r) { r.rsi = kData; }));        // prefetchw
  EXPECT_DONE(Run({0xf3, 0x0f, 0x1e, 0xfa}));         // endbr64
  EXPECT_DONE(Run({0xf3, 0x90}));                     // pause
}

TEST_F(InstructionAssistTest, BreakpointTrapsAfterTheInstruction) {
  auto exit = Run({0xcc}, [](kvm_regs& r) { r.rsp -= 8; });  // int3, on an unaligned stack
  ASSERT_EQ(static_cast<int>(exit.kind), static_cast<int>(Kind::kException));
  EXPECT_EQ(exit.vector, kVectorBreakpoint);
  EXPECT_EQ(Frame(0), MicroGuest::kKernelCode + 1);
  EXPECT_EQ(Frame(1), MicroGuest::kKernelCodeSelector);
  EXPECT_EQ(Frame(3), MicroGuest::kKernelStackTop - 8);
  EXPECT_EQ((regs().rsp + 40) % 16, 0u);
}

TEST_F(InstructionAssistTest, InvalidOpcodeIsRaised) {
  auto exit = Run({0x0f, 0x0b});  // ud2
  EXPECT_EQ(exit.vector, kVectorInvalidOpcode);
  EXPECT_EQ(Frame(0), MicroGuest::kKernelCode);
}

TEST_F(InstructionAssistTest, RandomNumbersDiffer) {
  EXPECT_DONE(Run({0x48, 0x0f, 0xc7, 0xf0}));  // rdrand %rax
  uint64_t first = regs().rax;
  EXPECT_TRUE(regs().rflags & kFlagCarry);
  EXPECT_DONE(Run({0x48, 0x0f, 0xc7, 0xf8}));  // rdseed %rax
  EXPECT_NE(regs().rax, first);
  EXPECT_DONE(Run({0x0f, 0xc7, 0xf0}, [](kvm_regs& r) { r.rax = ~0ull; }));  // rdrand %eax
  EXPECT_EQ(regs().rax >> 32, 0u);
}

TEST_F(InstructionAssistTest, SegmentBases) {
  // wrgsbase %rcx; rdgsbase %rax; wrfsbase %rdx; rdfsbase %rbx
  EXPECT_DONE(Run({0xf3, 0x48, 0x0f, 0xae, 0xd9, 0xf3, 0x48, 0x0f, 0xae, 0xc8, 0xf3, 0x48, 0x0f,
                   0xae, 0xd2, 0xf3, 0x48, 0x0f, 0xae, 0xc3},
                  [](kvm_regs& r) { r.rcx = 0x123456789000; r.rdx = kData; }));
  EXPECT_EQ(regs().rax, 0x123456789000u);
  EXPECT_EQ(regs().rbx, kData);
  EXPECT_EQ(sregs().gs.base, 0x123456789000u);
  auto exit = Run({0xf3, 0x48, 0x0f, 0xae, 0xd9}, [](kvm_regs& r) { r.rcx = 1ull << 60; });
  EXPECT_EQ(exit.vector, kVectorGeneralProtection);
}

TEST_F(InstructionAssistTest, SegmentLimitsAndRights) {
  // lsl %ecx, %eax of the TSS, whose limit is 0x67 in bytes
  EXPECT_DONE(Run({0x0f, 0x03, 0xc1}, [](kvm_regs& r) { r.rcx = MicroGuest::kTssSelector; }));
  EXPECT_EQ(regs().rax, 0x67u);
  EXPECT_TRUE(regs().rflags & kFlagZero);
  // of a page-granular segment
  EXPECT_DONE(Run({0x48, 0x0f, 0x03, 0xc1}, [](kvm_regs& r) { r.rcx = 0x18; }));
  EXPECT_EQ(regs().rax, 0xffffffffu);
  // lar %ecx, %eax
  EXPECT_DONE(Run({0x0f, 0x02, 0xc1}, [](kvm_regs& r) { r.rcx = 0x18; }));
  EXPECT_EQ(regs().rax, 0xc09300u);
  // a selector beyond the table: ZF clear, destination as it was
  EXPECT_DONE(Run({0x0f, 0x03, 0xc1}, [](kvm_regs& r) { r.rcx = 0x200; r.rax = 5; }));
  EXPECT_EQ(regs().rax, 5u);
  EXPECT_FALSE(regs().rflags & kFlagZero);
  // verw %cx: writable data, then code
  EXPECT_DONE(Run({0x0f, 0x00, 0xe9}, [](kvm_regs& r) { r.rcx = 0x18; }));
  EXPECT_TRUE(regs().rflags & kFlagZero);
  EXPECT_DONE(Run({0x0f, 0x00, 0xe9}, [](kvm_regs& r) { r.rcx = 0x10; }));
  EXPECT_FALSE(regs().rflags & kFlagZero);
  EXPECT_DONE(Run({0x0f, 0x00, 0xe1}, [](kvm_regs& r) { r.rcx = 0x10; }));  // verr %cx
  EXPECT_TRUE(regs().rflags & kFlagZero);
}

TEST_F(InstructionAssistTest, ExtendedControlRegister) {
  EXPECT_DONE(Run({0x0f, 0x01, 0xd0}, [](kvm_regs& r) { r.rcx = 0; }));  // xgetbv
  EXPECT_EQ(regs().rax & 7, 7u);
  auto exit = Run({0x0f, 0x01, 0xd0}, [](kvm_regs& r) { r.rcx = 9; });
  EXPECT_EQ(exit.vector, kVectorGeneralProtection);
}

TEST_F(InstructionAssistTest, Mxcsr) {
  guest_->Poke<uint32_t>(kData, 0x1fa0);
  // ldmxcsr (%rsi); stmxcsr 4(%rsi)
  EXPECT_DONE(Run({0x0f, 0xae, 0x16, 0x0f, 0xae, 0x5e, 0x04}, [](kvm_regs& r) { r.rsi = kData; }));
  EXPECT_EQ(guest_->Peek<uint32_t>(kData + 4), 0x1fa0u);
  guest_->Poke<uint32_t>(kData, 0xffff0000);
  auto exit = Run({0x0f, 0xae, 0x16}, [](kvm_regs& r) { r.rsi = kData; });
  EXPECT_EQ(exit.vector, kVectorGeneralProtection);
}

// Fills every extended register of the guest with a pattern and returns the XSAVE area of it.
class ExtendedStateTest : public InstructionAssistTest {
 protected:
  void SetUp() override {
    InstructionAssistTest::SetUp();
    if (guest_ == nullptr) return;
    layout_ = XsaveLayout::FromCpuid(guest_->cpuid());
    xcr0_ = guest_->vcpu().GetXcrs().value().xcrs[0].value;
    area_.resize(guest_->vcpu().xsave_size());
  }
  void Fill(uint8_t seed) {
    ASSERT_TRUE(guest_->vcpu().GetXsave(area_).ok());
    auto pattern = [&](size_t from, size_t size) {
      for (size_t i = from; i < from + size; ++i) area_[i] = static_cast<uint8_t>(seed + i * 7);
    };
    for (size_t reg = 0; reg < 8; ++reg) pattern(32 + reg * 16, 10);
    pattern(160, 256);
    for (int i = 2; i < 63; ++i) {
      if ((xcr0_ >> i & 1) != 0 && i != 9) pattern(layout_.components[i].offset, layout_.components[i].size);
    }
    area_[4] = 0xff;
    memcpy(area_.data() + 512, &xcr0_, 8);
    ASSERT_TRUE(guest_->vcpu().SetXsave(area_).ok());
    ASSERT_TRUE(guest_->vcpu().GetXsave(area_).ok());
  }
  std::vector<uint8_t> State() {
    std::vector<uint8_t> now(area_.size());
    EXPECT_TRUE(guest_->vcpu().GetXsave(now).ok());
    return now;
  }
  static void Everything(kvm_regs& r) {
    r.rsi = kData;
    r.rax = r.rdx = 0xffffffff;
  }

  XsaveLayout layout_;
  uint64_t xcr0_ = 0;
  std::vector<uint8_t> area_;
};

// Each way to save, then another state, then each way to restore: every byte must come back.
TEST_F(ExtendedStateTest, SavesAndRestoresEveryRegister) {
  struct Pair {
    const char* name;
    Code save, restore;
  };
  const Pair pairs[] = {
      {"xsave, xrstor", {0x48, 0x0f, 0xae, 0x26}, {0x48, 0x0f, 0xae, 0x2e}},
      {"xsaveopt, xrstor", {0x48, 0x0f, 0xae, 0x36}, {0x48, 0x0f, 0xae, 0x2e}},
      {"xsavec, xrstor", {0x48, 0x0f, 0xc7, 0x26}, {0x48, 0x0f, 0xae, 0x2e}},
      {"xsaves, xrstors", {0x48, 0x0f, 0xc7, 0x2e}, {0x48, 0x0f, 0xc7, 0x1e}},
  };
  for (const Pair& pair : pairs) {
    SCOPED_TRACE(pair.name);
    std::vector<uint8_t> zeros(8192);
    guest_->memory().Write(kData, zeros);
    Fill(11);
    std::vector<uint8_t> expected = State();
    EXPECT_DONE(Run(pair.save, Everything));
    EXPECT_EQ(State(), expected);
    Fill(99);
    EXPECT_NE(State(), expected);
    EXPECT_DONE(Run(pair.restore, Everything));
    EXPECT_EQ(State(), expected);
  }
}

TEST_F(ExtendedStateTest, StandardFormatIsWhatKvmHolds) {
  Fill(42);
  std::vector<uint8_t> expected = State();
  EXPECT_DONE(Run({0x48, 0x0f, 0xae, 0x26}, Everything));
  std::vector<uint8_t> saved(expected.size());
  guest_->memory().Read(kData, saved);
  for (int i = 2; i < 63; ++i) {
    if ((xcr0_ >> i & 1) == 0) continue;
    auto [offset, size, aligned] = layout_.components[i];
    EXPECT_EQ(memcmp(saved.data() + offset, expected.data() + offset, size), 0) << "component " << i;
  }
  EXPECT_EQ(memcmp(saved.data() + 160, expected.data() + 160, 256), 0);
}

TEST_F(ExtendedStateTest, ComponentsNotNamedAreLeftAlone) {
  Fill(5);
  EXPECT_DONE(Run({0x48, 0x0f, 0xae, 0x26}, Everything));
  Fill(77);
  std::vector<uint8_t> before = State();
  // xrstor of SSE only
  EXPECT_DONE(Run({0x48, 0x0f, 0xae, 0x2e}, [](kvm_regs& r) { r.rsi = kData; r.rax = 2; }));
  std::vector<uint8_t> after = State();
  EXPECT_EQ(memcmp(after.data() + 32, before.data() + 32, 128), 0);
  EXPECT_NE(memcmp(after.data() + 160, before.data() + 160, 256), 0);
  EXPECT_EQ(memcmp(after.data() + 576, before.data() + 576, layout_.components[2].size), 0);
}

TEST_F(ExtendedStateTest, MalformedAreasAndAddressesFault) {
  const Code xrstor = {0x48, 0x0f, 0xae, 0x2e};
  std::vector<uint8_t> zeros(8192);
  guest_->memory().Write(kData, zeros);
  auto exit = Run(xrstor, [](kvm_regs& r) { Everything(r); r.rsi += 8; });
  EXPECT_EQ(exit.vector, kVectorGeneralProtection);
  guest_->Poke<uint64_t>(kData + 512, 1ull << 40);  // a component that is not enabled
  exit = Run(xrstor, Everything);
  EXPECT_EQ(exit.vector, kVectorGeneralProtection);
  guest_->Poke<uint64_t>(kData + 512, 1);
  guest_->Poke<uint64_t>(kData + 520, 1);  // standard format with bits in XCOMP_BV
  exit = Run(xrstor, Everything);
  EXPECT_EQ(exit.vector, kVectorGeneralProtection);
  exit = Run({0x48, 0x0f, 0xae, 0x26}, [](kvm_regs& r) { Everything(r); r.rsi = MicroGuest::kUnmappedPage; });
  EXPECT_EQ(exit.vector, kVectorPageFault);
}

TEST_F(ExtendedStateTest, X87IsInitialised) {
  Fill(3);
  EXPECT_DONE(Run({0xdb, 0xe3}));  // fninit
  std::vector<uint8_t> state = State();
  EXPECT_EQ(state[0] | state[1] << 8, 0x37f);
  EXPECT_EQ(state[4], 0);
}

// A SYSCALL of user mode arrives at LSTAR in ring 0 as the processor would bring it there.
TEST_F(InstructionAssistTest, SyscallFromUserMode) {
  // Ring 0 sets the MSRs itself, so that the writes exit; then returns to user mode by SYSRET.
  Code code;
  auto wrmsr = [&](uint32_t msr, uint64_t value) {
    auto load = [&](uint8_t opcode, uint32_t v) {
      code.push_back(opcode);
      for (int i = 0; i < 4; ++i) code.push_back(static_cast<uint8_t>(v >> i * 8));
    };
    load(0xb9, msr);
    load(0xb8, static_cast<uint32_t>(value));
    load(0xba, static_cast<uint32_t>(value >> 32));
    code.insert(code.end(), {0x0f, 0x30});
  };
  constexpr uint64_t kEntry = MicroGuest::kKernelCode + 0x800;
  wrmsr(kMsrStar, MicroGuest::kStar);
  wrmsr(kMsrSyscallMask, kFlagDirection | kFlagCarry);
  wrmsr(kMsrLstar, kEntry);
  const uint8_t done[] = {0xe6, MicroGuest::kDonePort, 0xf4};
  guest_->memory().Write(kEntry, done);
  EXPECT_DONE(Run(code));
  // std; stc; mov $0x1234, %edi; syscall
  const uint8_t user[] = {0xfd, 0xf9, 0xbf, 0x34, 0x12, 0, 0, 0x0f, 0x05};
  guest_->SetUserCode(user);
  ASSERT_TRUE(guest_->StartUser().ok());
  auto exit = guest_->Run();
  ASSERT_TRUE(exit.ok()) << exit.error().message();
  EXPECT_DONE(*exit);
  EXPECT_EQ(sregs().cs.selector, MicroGuest::kKernelCodeSelector);
  EXPECT_EQ(sregs().ss.selector, MicroGuest::kKernelDataSelector);
  EXPECT_EQ(sregs().cs.dpl, 0);
  EXPECT_EQ(regs().rcx, MicroGuest::kUserCode + sizeof user);
  EXPECT_EQ(regs().rdi, 0x1234u);
  EXPECT_EQ(regs().rsp, MicroGuest::kUserStackTop);
  EXPECT_TRUE(regs().r11 & kFlagCarry);
  EXPECT_TRUE(regs().r11 & kFlagDirection);
  EXPECT_FALSE(regs().rflags & (kFlagCarry | kFlagDirection));

  // A page fault of user mode still reaches the handler, with its own address.
  const uint8_t fault[] = {0x8b, 0x04, 0x25, 0x00, 0xc0, 0x03, 0x00};  // mov kUnmappedPage, %eax
  guest_->SetUserCode(fault);
  ASSERT_TRUE(guest_->StartUser().ok());
  exit = guest_->Run();
  ASSERT_TRUE(exit.ok()) << exit.error().message();
  EXPECT_EQ(exit->vector, kVectorPageFault);
  EXPECT_EQ(sregs().cr2, MicroGuest::kUnmappedPage);
}

}  // namespace
}  // namespace cube::vmm
