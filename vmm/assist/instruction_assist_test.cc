// Every instruction of the assist layer but those of the extended state (extended_state_test.cc) and
// those that only raise something (exception_delivery_test.cc), run in ring 0 of a micro guest.
#include "vmm/assist/instruction_assist.h"

#include <gtest/gtest.h>

#include "vmm/assist/micro_guest_fixture.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

using testing::Code;

class InstructionAssistTest : public testing::MicroGuestTest {};

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
  EXPECT_KIND(exit, kException);
  EXPECT_EQ(exit.vector, kVectorGeneralProtection);
  EXPECT_EQ(Frame(1), MicroGuest::kKernelCode);
  // Not mapped: #PF with the write bit and the address.
  exit = Run(code, [&](kvm_regs& r) { prepare(r); r.rsi = MicroGuest::kUnmappedPage; });
  EXPECT_EQ(exit.vector, kVectorPageFault);
  EXPECT_EQ(sregs().cr2, MicroGuest::kUnmappedPage);
  EXPECT_EQ(Frame(0), kFaultWrite);
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
  auto at = [](uint64_t address) { return [=](kvm_regs& r) { r.rsi = address; }; };
  const Code hints[] = {
      {0x0f, 0x0d, 0x06},        // prefetch (%rsi)
      {0x0f, 0x0d, 0x0e},        // prefetchw (%rsi)
      {0x0f, 0x18, 0x06},        // prefetchnta (%rsi)
      {0x0f, 0x18, 0x0e},        // prefetcht0 (%rsi)
      {0x0f, 0x18, 0x16},        // prefetcht1 (%rsi)
      {0x0f, 0x18, 0x1e},        // prefetcht2 (%rsi)
      {0xf3, 0x0f, 0x1e, 0xfa},  // endbr64
      {0xf3, 0x90},              // pause
  };
  for (const Code& hint : hints) {
    SCOPED_TRACE(::testing::PrintToString(hint));
    EXPECT_DONE(Run(hint, at(kData)));
    EXPECT_DONE(Run(hint, at(MicroGuest::kUnmappedPage)));
    EXPECT_DONE(Run(hint, at(1ull << 60)));
  }
}

TEST_F(InstructionAssistTest, CacheLinesAreWrittenBack) {
  const Code instructions[] = {
      {0x66, 0x0f, 0xae, 0x3e},  // clflushopt (%rsi)
      {0x66, 0x0f, 0xae, 0x36},  // clwb (%rsi)
  };
  for (const Code& code : instructions) {
    SCOPED_TRACE(::testing::PrintToString(code));
    EXPECT_DONE(Run(code, [](kvm_regs& r) { r.rsi = kData; }));
    EXPECT_DONE(Run(code, [](kvm_regs& r) { r.rsi = MicroGuest::kReadOnlyPage; }));
  }
  // clwb faults like a load. (KVM's emulator takes clflushopt for itself, and asks nothing.)
  EXPECT_EXCEPTION(Run(instructions[1], [](kvm_regs& r) { r.rsi = MicroGuest::kUnmappedPage; }),
                   kVectorPageFault);
  EXPECT_EQ(Frame(0), 0u);
  EXPECT_EQ(sregs().cr2, MicroGuest::kUnmappedPage);
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

TEST_F(InstructionAssistTest, WaitHasNothingToWaitFor) {
  EXPECT_DONE(Run({0x9b}));  // fwait
}

TEST_F(InstructionAssistTest, InvpcidOfEveryType) {
  const Code code = {0x66, 0x0f, 0x38, 0x82, 0x06};  // invpcid (%rsi), %rax
  auto prepare = [](uint64_t type) {
    return [=](kvm_regs& r) {
      r.rsi = kData;
      r.rax = type;
    };
  };
  guest_->Poke<uint64_t>(kData, 0);
  guest_->Poke<uint64_t>(kData + 8, MicroGuest::kUserData);
  for (uint64_t type = 0; type <= 3; ++type) {
    EXPECT_DONE(Run(code, prepare(type)));
    EXPECT_EQ(regs().rip, MicroGuest::kKernelCode + code.size() + 2);
    EXPECT_EQ(sregs().cr4 & kCr4GlobalPages, 0u);
  }
  EXPECT_EXCEPTION(Run(code, prepare(4)), kVectorGeneralProtection);
  guest_->Poke<uint64_t>(kData + 8, 1ull << 60);  // type 0 names an address
  EXPECT_EXCEPTION(Run(code, prepare(0)), kVectorGeneralProtection);
  EXPECT_DONE(Run(code, prepare(1)));
  guest_->Poke<uint64_t>(kData, 7);  // a PCID, with CR4.PCIDE clear
  EXPECT_EXCEPTION(Run(code, prepare(1)), kVectorGeneralProtection);
  EXPECT_DONE(Run(code, prepare(2)));
  guest_->Poke<uint64_t>(kData, 1ull << 12);  // reserved
  EXPECT_EXCEPTION(Run(code, prepare(0)), kVectorGeneralProtection);
  EXPECT_EXCEPTION(Run(code, [](kvm_regs& r) { r.rsi = MicroGuest::kUnmappedPage; }),
                   kVectorPageFault);
}

// The second page of the operand is not there: the fault names it, and nothing has been done.
TEST_F(InstructionAssistTest, OperandsThatCrossIntoAnUnmappedPage) {
  struct Case {
    const char* text;
    Code code;
    uint64_t before;  // how much of the operand lies on the page that is mapped
  };
  const Case cases[] = {
      {"popcnt (%rsi), %rax", {0xf3, 0x48, 0x0f, 0xb8, 0x06}, 7},
      {"popcnt (%rsi), %eax", {0xf3, 0x0f, 0xb8, 0x06}, 3},
      {"popcnt (%rsi), %ax", {0x66, 0xf3, 0x0f, 0xb8, 0x06}, 1},
      {"crc32q (%rsi), %rax", {0xf2, 0x48, 0x0f, 0x38, 0xf1, 0x06}, 7},
      {"crc32l (%rsi), %eax", {0xf2, 0x0f, 0x38, 0xf1, 0x06}, 3},
      {"crc32w (%rsi), %eax", {0x66, 0xf2, 0x0f, 0x38, 0xf1, 0x06}, 1},
      {"lsl (%rsi), %eax", {0x0f, 0x03, 0x06}, 1},
      {"lar (%rsi), %eax", {0x0f, 0x02, 0x06}, 1},
      {"verw (%rsi)", {0x0f, 0x00, 0x2e}, 1},
      {"verr (%rsi)", {0x0f, 0x00, 0x26}, 1},
      {"ldmxcsr (%rsi)", {0x0f, 0xae, 0x16}, 2},
      {"invpcid (%rsi), %rax", {0x66, 0x0f, 0x38, 0x82, 0x06}, 8},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    auto exit = Run(c.code, [&](kvm_regs& r) { r.rsi = MicroGuest::kUnmappedPage - c.before; });
    EXPECT_EXCEPTION(exit, kVectorPageFault);
    EXPECT_EQ(sregs().cr2, MicroGuest::kUnmappedPage);
    EXPECT_EQ(Frame(0), 0u);
    EXPECT_EQ(Frame(1), MicroGuest::kKernelCode);
    EXPECT_EQ(regs().rax, 0u);
  }
  const uint64_t last = MicroGuest::kUnmappedPage - 2;
  guest_->Poke<uint16_t>(last, 0x5a5a);
  EXPECT_EXCEPTION(Run({0x0f, 0xae, 0x1e}, [&](kvm_regs& r) { r.rsi = last; }),  // stmxcsr (%rsi)
                   kVectorPageFault);
  EXPECT_EQ(Frame(0), kFaultWrite);
  EXPECT_EQ(sregs().cr2, MicroGuest::kUnmappedPage);
  EXPECT_EQ(guest_->Peek<uint16_t>(last), 0x5a5a);
}

// An operand that just fits must not fault.
TEST_F(InstructionAssistTest, OperandsThatEndWithTheirPage) {
  const struct {
    const char* text;
    Code code;
    uint64_t size;
    uint64_t result;
  } cases[] = {
      {"popcnt (%rsi), %rax", {0xf3, 0x48, 0x0f, 0xb8, 0x06}, 8, 5},
      {"popcnt (%rsi), %eax", {0xf3, 0x0f, 0xb8, 0x06}, 4, 4},
      {"popcnt (%rsi), %ax", {0x66, 0xf3, 0x0f, 0xb8, 0x06}, 2, 3},
      {"lsl (%rsi), %eax", {0x0f, 0x03, 0x06}, 2, 0x67},
      {"lsl (%rsi), %rax", {0x48, 0x0f, 0x03, 0x06}, 2, 0x67},
      {"lar (%rsi), %eax", {0x0f, 0x02, 0x06}, 2, 0x8b00},
      {"lar (%rsi), %rax", {0x48, 0x0f, 0x02, 0x06}, 2, 0x8b00},
      {"verw (%rsi)", {0x0f, 0x00, 0x2e}, 2, 0},
      {"verr (%rsi)", {0x0f, 0x00, 0x26}, 2, 0},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    // The last two bytes are a selector of the TSS.
    guest_->Poke<uint64_t>(MicroGuest::kUnmappedPage - 8, 0x0038'0100'0001'0000);
    static_assert(MicroGuest::kTssSelector == 0x38);
    EXPECT_DONE(Run(c.code, [&](kvm_regs& r) { r.rsi = MicroGuest::kUnmappedPage - c.size; }));
    EXPECT_EQ(regs().rax, c.result);
  }
}

// CR0.TS and CR0.EM keep the floating-point instructions for a kernel that wants to know of them.
TEST_F(InstructionAssistTest, FloatingPointMayBeTrapped) {
  const struct {
    const char* text;
    Code code;
    uint64_t cr0;
    uint8_t vector;
  } cases[] = {
      {"fninit, TS", {0xdb, 0xe3}, kCr0TaskSwitched, kVectorDeviceNotAvailable},
      {"fninit, EM", {0xdb, 0xe3}, kCr0Emulation, kVectorDeviceNotAvailable},
      {"fnclex, TS", {0xdb, 0xe2}, kCr0TaskSwitched, kVectorDeviceNotAvailable},
      {"fwait, TS and MP", {0x9b}, kCr0TaskSwitched, kVectorDeviceNotAvailable},
      {"ldmxcsr, TS", {0x0f, 0xae, 0x16}, kCr0TaskSwitched, kVectorDeviceNotAvailable},
      {"stmxcsr, EM", {0x0f, 0xae, 0x1e}, kCr0Emulation, kVectorInvalidOpcode},
      {"xsave, TS", {0x48, 0x0f, 0xae, 0x26}, kCr0TaskSwitched, kVectorDeviceNotAvailable},
      {"xrstor, TS", {0x48, 0x0f, 0xae, 0x2e}, kCr0TaskSwitched, kVectorDeviceNotAvailable},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    auto exit = Run(c.code, [&](kvm_regs& r) {
      r.rsi = kData;
      guest_->vcpu().mutable_sregs().value()->cr0 |= c.cr0;
    });
    EXPECT_EXCEPTION(exit, c.vector);
    EXPECT_EQ(Frame(0), MicroGuest::kKernelCode);
  }
}

}  // namespace
}  // namespace cube::vmm
