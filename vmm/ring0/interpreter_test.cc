#include "vmm/ring0/interpreter.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "vmm/paging.h"
#include "vmm/ring0/test_machine.h"
#include "vmm/segments.h"

// What lies beyond single instructions: blocks, stops, changed code, and what only ring 0 may do.
namespace cube::vmm::ring0 {
namespace {

// Where jumps are remembered.
constexpr uint64_t kCode = 0xffffffff81000000, kStack = 0xffffffff81010000;
constexpr uint64_t kCodePhysical = 0x100000, kStackPhysical = 0x110000;

class InterpreterTest : public testing::Test {
 protected:
  void SetUp() override {
    for (uint64_t i = 0; i < 3; ++i) {
      machine_.Map(kCode + i * kPageSize, kCodePhysical + i * kPageSize, kRights);
    }
    machine_.Map(kStack, kStackPhysical, kRights);
    memset(machine_.At(kCodePhysical), 0xf4, 3 * kPageSize);
    cpu().r[4] = kStack + 0x800;
  }
  Stop Run(std::vector<uint8_t> code, uint64_t at = 0) {
    machine_.PutCode(kCodePhysical + at, code);
    cpu().rip = kCode + at;
    return Interpret(cpu());
  }
  void PushFrame(std::vector<uint64_t> quads) {
    cpu().r[4] -= 8 * quads.size();
    for (size_t i = 0; i < quads.size(); ++i) Stack(i) = quads[i];
  }
  uint64_t& Stack(size_t i) { return machine_.Quad(kStackPhysical + cpu().r[4] - kStack + 8 * i); }
  Cpu& cpu() { return machine_.cpu(); }

  static constexpr uint64_t kRights = TestMachine::kRights | kEntryGlobal;
  TestMachine machine_;
};

TEST_F(InterpreterTest, CountsInstructions) {
  // mov ecx, 5; 1: dec ecx; jnz 1b; hlt
  EXPECT_EQ(Run({0xb9, 5, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc}), Stop::kHalt);
  EXPECT_EQ(cpu().rip, kCode + 9);
  EXPECT_EQ(cpu().instructions, 11u);
}

TEST_F(InterpreterTest, CountsInstructionsOfCutBlocks) {
  EXPECT_EQ(Run(std::vector<uint8_t>(500, 0x90)), Stop::kHalt);
  EXPECT_EQ(cpu().instructions, 500u);
}

TEST_F(InterpreterTest, BudgetEndsALoop) {
  cpu().budget = 10;
  EXPECT_EQ(Run({0xeb, 0xfe}), Stop::kPoll);
  EXPECT_EQ(cpu().rip, kCode);
  EXPECT_LE(cpu().instructions, 11u);
}

TEST_F(InterpreterTest, AttentionIsSeenOnceRemembered) {
  cpu().budget = 10;
  EXPECT_EQ(Run({0xeb, 0xfe}), Stop::kPoll);
  cpu().attention = true;
  cpu().budget = 1000;
  // A remembered jump looks only at the budget: whoever sets `attention` must bear that.
  EXPECT_EQ(Interpret(cpu()), Stop::kPoll);
  EXPECT_EQ(cpu().rip, kCode);
}

// What ends a block without leaving it goes on behind it, whatever the cache holds there.
TEST_F(InterpreterTest, BlocksGoOnBehindWhatEndsThem) {
  // mov rax, cr3; mov cr3, rax; invlpg [rsp]; wrmsr; mov bl, 7
  cpu().r[1] = kMsrKernelGsBase;
  cpu().r[2] = 0;
  for (int i = 0; i < 2; ++i) {
    cpu().r[3] = 0;
    EXPECT_EQ(Run({0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x0f, 0x01, 0x3c, 0x24, 0x0f, 0x30,
                   0xb3, 7}, static_cast<uint64_t>(i) * 0x100),
              Stop::kHalt);
    EXPECT_EQ(cpu().r[3], 7u);
    EXPECT_EQ(cpu().instructions, 5u * static_cast<uint64_t>(i + 1));
  }
}

TEST_F(InterpreterTest, InstructionAcrossPages) {
  for (uint64_t cut = 1; cut < 10; ++cut) {
    memset(machine_.At(kCodePhysical), 0xf4, 3 * kPageSize);
    // mov rax, imm64
    EXPECT_EQ(Run({0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}, kPageSize - cut), Stop::kHalt);
    EXPECT_EQ(cpu().r[0], 0x0807060504030201u);
    EXPECT_EQ(cpu().rip, kCode + kPageSize - cut + 10);
    cpu().r[0] = 0;
  }
}

TEST_F(InterpreterTest, FetchFaults) {
  machine_.Map(kCode + 3 * kPageSize, 0, 0);
  EXPECT_EQ(Run({0x48, 0xb8}, 3 * kPageSize - 2), Stop::kException);
  EXPECT_EQ(cpu().exception.address, kCode + 3 * kPageSize);
  EXPECT_EQ(cpu().exception.error_code, 16u);
  EXPECT_EQ(cpu().rip, kCode + 3 * kPageSize - 2);
  // A whole instruction at the end of the page needs nothing behind it.
  EXPECT_EQ(Run({0x90, 0x90}, 3 * kPageSize - 2), Stop::kException);
  EXPECT_EQ(cpu().rip, kCode + 3 * kPageSize);
}

TEST_F(InterpreterTest, ChangedCodeIsRunAnew) {
  // call 0x100; mov byte [rip + x], 2; call 0x100; hlt    0x100: mov al, 1; ret
  machine_.PutCode(kCodePhysical + 0x100, std::vector<uint8_t>{0xb0, 1, 0xc3});
  EXPECT_EQ(Run({0xe8, 0xfb, 0, 0, 0,                       // call 0x100
                 0x88, 0xc3,                                // mov bl, al
                 0xc6, 0x05, 0xf3, 0, 0, 0, 2,              // mov byte [0x101], 2
                 0xe8, 0xed, 0, 0, 0}),                     // call 0x100
            Stop::kHalt);
  EXPECT_EQ(cpu().r[3] & 0xff, 1u);
  EXPECT_EQ(cpu().r[0] & 0xff, 2u);
  EXPECT_GT(machine_.code().dropped(), 0u);
}

TEST_F(InterpreterTest, ChangedCodeThroughAnotherMapping) {
  constexpr uint64_t kAlias = 0xffff888000020000;
  machine_.Map(kAlias, kCodePhysical, kRights);
  cpu().r[6] = kAlias + 0x101;
  machine_.PutCode(kCodePhysical + 0x100, std::vector<uint8_t>{0xb0, 1, 0xc3});
  for (uint8_t i = 10; i < 20; ++i) {
    // mov byte [rsi], i; call 0x100
    EXPECT_EQ(Run({0xc6, 0x06, i, 0xe8, 0xf8, 0, 0, 0}, 0), Stop::kHalt);
    EXPECT_EQ(cpu().r[0] & 0xff, i);
  }
  // By a string instruction, a locked one and one across pages.
  cpu().r[0] = 33;
  cpu().r[7] = kAlias + 0x101;
  cpu().r[1] = 1;
  EXPECT_EQ(Run({0xf3, 0xaa, 0xb0, 0, 0xe8, 0xf7, 0, 0, 0}, 0), Stop::kHalt);
  EXPECT_EQ(cpu().r[0] & 0xff, 33u);
  EXPECT_EQ(Run({0xf0, 0xfe, 0x06, 0xe8, 0xf8, 0, 0, 0}, 0), Stop::kHalt);
  EXPECT_EQ(cpu().r[0] & 0xff, 34u);
}

TEST_F(InterpreterTest, UserPagesAreNotKept) {
  machine_.Map(0x20000000, kCodePhysical, TestMachine::kRights | kEntryUser);
  machine_.PutCode(kCodePhysical, std::vector<uint8_t>{0xb0, 1});
  cpu().rip = 0x20000000;
  uint64_t blocks = machine_.code().blocks();
  EXPECT_EQ(Interpret(cpu()), Stop::kHalt);
  *machine_.At(kCodePhysical + 1) = 2;  // as user mode would, unseen
  cpu().rip = 0x20000000;
  EXPECT_EQ(Interpret(cpu()), Stop::kHalt);
  EXPECT_EQ(cpu().r[0] & 0xff, 2u);
  EXPECT_EQ(machine_.code().blocks(), blocks);
}

TEST_F(InterpreterTest, RememberedJumpsGoWithTheirMapping) {
  // A local page of the upper half, executed but never read.
  constexpr uint64_t kLocal = 0xffffc90000000000;
  machine_.Map(kLocal, kCodePhysical, TestMachine::kRights);
  machine_.PutCode(kCodePhysical + 0x40, std::vector<uint8_t>{0xb0, 1, 0xf4});
  machine_.PutCode(kCodePhysical + kPageSize + 0x40, std::vector<uint8_t>{0xb0, 2, 0xf4});
  const std::vector<uint8_t> kJump = {0xff, 0xe6};  // jmp rsi
  cpu().r[6] = kLocal + 0x40;
  EXPECT_EQ(Run(kJump), Stop::kHalt);
  EXPECT_EQ(cpu().r[0] & 0xff, 1u);
  machine_.Map(kLocal, kCodePhysical + kPageSize, TestMachine::kRights);
  machine_.mmu().LoadCr3(cpu(), TestMachine::kRoot);
  EXPECT_EQ(Run(kJump), Stop::kHalt);
  EXPECT_EQ(cpu().r[0] & 0xff, 2u);
}

TEST_F(InterpreterTest, StiLooksForInterruptsSoon) {
  cpu().system_flags &= ~kFlagInterrupt;
  // sti; nop; jmp +0
  EXPECT_EQ(Run({0xfb, 0x90, 0xeb, 0x00}), Stop::kPoll);
  EXPECT_EQ(cpu().rip, kCode + 4);
  EXPECT_NE(cpu().system_flags & kFlagInterrupt, 0u);
  cpu().budget = 100;
  EXPECT_EQ(Run({0xfb, 0xf4}), Stop::kHalt);
  EXPECT_EQ(cpu().rip, kCode);
}

TEST_F(InterpreterTest, PopFlagsOfRing0) {
  PushFrame({0x3202});
  EXPECT_EQ(Run({0x9d, 0xeb, 0x00}), Stop::kPoll);
  EXPECT_EQ(cpu().rflags(), 0x3202u);
  cpu().budget = 100;
  PushFrame({kFlagTrap});
  uint64_t rsp = cpu().r[4];
  EXPECT_EQ(Run({0x9d}), Stop::kHandOff);
  EXPECT_EQ(cpu().r[4], rsp);
}

TEST_F(InterpreterTest, InterruptReturn) {
  // To ring 0.
  PushFrame({kCode + 0x200, cpu().cs, 0x246, kStack + 0x123, cpu().ss});
  EXPECT_EQ(Run({0x48, 0xcf}), Stop::kPoll);  // interrupts are on now
  cpu().budget = 100;
  EXPECT_EQ(Interpret(cpu()), Stop::kHalt);
  EXPECT_EQ(cpu().rip, kCode + 0x200);
  EXPECT_EQ(cpu().r[4], kStack + 0x123);
  EXPECT_EQ(cpu().rflags(), 0x246u);
  // To user mode, or with something unusual: not begun.
  cpu().r[4] = kStack + 0x800;
  PushFrame({0x400000, 0x33, 0x202, 0x7fff0000, 0x2b});
  uint64_t rsp = cpu().r[4];
  EXPECT_EQ(Run({0x48, 0xcf}), Stop::kUserReturn);
  EXPECT_EQ(cpu().rip, kCode);
  EXPECT_EQ(cpu().r[4], rsp);
  Stack(1) = cpu().cs + 8u;
  EXPECT_EQ(Run({0x48, 0xcf}), Stop::kHandOff);
  Stack(1) = cpu().cs;
  Stack(2) = 0x302;
  EXPECT_EQ(Run({0x48, 0xcf}), Stop::kHandOff);
}

// What user mode is entered with from outside, and what is left to KVM.
TEST_F(InterpreterTest, ReturnsToUserMode) {
  cpu().user_cs = 0x33;
  cpu().user_ss = 0x2b;
  cpu().efer |= kEferSyscallEnable;
  PushFrame({0x400000, 0x33, 0x10246, 0x7fff0000, 0x2b});
  const uint64_t rsp = cpu().r[4];
  auto is_plain = [&] {
    cpu().user_return = UserReturn{};
    EXPECT_EQ(Run({0x48, 0xcf}), Stop::kUserReturn);
    EXPECT_EQ(cpu().rip, kCode);
    EXPECT_EQ(cpu().r[4], rsp);
    return cpu().user_return.has_value();
  };
  ASSERT_TRUE(is_plain());
  EXPECT_EQ(cpu().user_return->rip, 0x400000u);
  EXPECT_EQ(cpu().user_return->rsp, 0x7fff0000u);
  EXPECT_EQ(cpu().user_return->rflags, 0x10246u);
  struct Unusual {
    size_t quad;
    uint64_t value;
  };
  const Unusual kUnusual[] = {
      {0, 0x800000000000},      // not the lower half
      {0, 0xffff888000000000},
      {1, 0x23},                // 32-bit code
      {2, 0x346},               // single steps
      {2, 0x20246},             // virtual 8086
      {2, 0x80246},             // a virtual interrupt
      {4, 0x23},
  };
  for (const Unusual& unusual : kUnusual) {
    uint64_t usual = std::exchange(Stack(unusual.quad), unusual.value);
    EXPECT_FALSE(is_plain()) << unusual.quad << " " << unusual.value;
    Stack(unusual.quad) = usual;
  }
  cpu().ds = 0x10;  // must be cleared on the way
  EXPECT_FALSE(is_plain());
  cpu().ds = 0;
  cpu().system_flags |= kFlagNestedTask;
  EXPECT_EQ(Run({0x48, 0xcf}), Stop::kHandOff);
  cpu().system_flags &= ~kFlagNestedTask;
  EXPECT_TRUE(is_plain());

  cpu().r[1] = 0x401000;
  cpu().r[11] = 0x30346;  // RF and VM are not loaded, TF is
  EXPECT_EQ(Run({0x48, 0x0f, 0x07}), Stop::kUserReturn);
  EXPECT_FALSE(cpu().user_return.has_value());
  cpu().r[11] = 0x30246;
  EXPECT_EQ(Run({0x48, 0x0f, 0x07}), Stop::kUserReturn);
  ASSERT_TRUE(cpu().user_return.has_value());
  EXPECT_EQ(cpu().user_return->rip, 0x401000u);
  EXPECT_EQ(cpu().user_return->rsp, rsp);
  EXPECT_EQ(cpu().user_return->rflags, 0x246u);
  cpu().efer &= ~kEferSyscallEnable;
  EXPECT_EQ(Run({0x48, 0x0f, 0x07}), Stop::kUserReturn);
  EXPECT_FALSE(cpu().user_return.has_value());
}

TEST_F(InterpreterTest, LongStringsLetTheWorldIn) {
  // rep stosb over a megabyte, all of it one page.
  for (uint64_t i = 0; i < 256; ++i) {
    machine_.Map(0xffffc90000000000 + i * kPageSize, 0x120000, kRights);
  }
  cpu().r[7] = 0xffffc90000000000;
  cpu().r[1] = 256 * kPageSize;
  int stops = 0;
  Stop stop = Run({0xf3, 0xaa});
  while (stop == Stop::kPoll) {
    EXPECT_EQ(cpu().rip, kCode);
    ++stops;
    stop = Interpret(cpu());
  }
  EXPECT_EQ(stop, Stop::kHalt);
  EXPECT_EQ(stops, 3);
  EXPECT_EQ(cpu().r[1], 0u);
}

TEST_F(InterpreterTest, SystemRegisters) {
  cpu().segment_base[kGsSegment] = 0x1000;
  cpu().kernel_gs_base = 0xffff888000000000;
  EXPECT_EQ(Run({0x0f, 0x01, 0xf8}), Stop::kHalt);
  EXPECT_EQ(cpu().segment_base[kGsSegment], 0xffff888000000000);
  cpu().r[1] = kMsrKernelGsBase;
  EXPECT_EQ(Run({0x0f, 0x32}), Stop::kHalt);
  EXPECT_EQ(cpu().r[0], 0x1000u);
  EXPECT_EQ(cpu().r[2], 0u);
  cpu().r[2] = 0x8000;  // not canonical
  EXPECT_EQ(Run({0x0f, 0x30}), Stop::kMsr);
  cpu().r[1] = kMsrStar;
  EXPECT_EQ(Run({0x0f, 0x32}), Stop::kMsr);
  EXPECT_EQ(Run({0x0f, 0x20, 0xd8}), Stop::kHalt);  // mov rax, cr3
  EXPECT_EQ(cpu().r[0], TestMachine::kRoot);
  EXPECT_EQ(Run({0x0f, 0x22, 0xd8}), Stop::kHalt);  // and back
  EXPECT_EQ(Run({0x0f, 0x22, 0xc0}), Stop::kHandOff);  // mov cr0, rax
  EXPECT_EQ(Run({0x0f, 0x01, 0xcb}), Stop::kHalt);  // stac
  EXPECT_NE(cpu().rflags() & kFlagAlignmentCheck, 0u);
  // FS, which the differential test cannot have: mov rax, fs:[0]
  cpu().segment_base[kFsSegment] = kStack + 8;
  machine_.Quad(kStackPhysical + 8) = 99;
  EXPECT_EQ(Run({0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0}), Stop::kHalt);
  EXPECT_EQ(cpu().r[0], 99u);
}

}  // namespace
}  // namespace cube::vmm::ring0
