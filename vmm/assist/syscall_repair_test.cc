// SYSCALL and page faults of user mode, in a micro guest whose ring 0 sets them up itself.
#include "vmm/assist/syscall_repair.h"

#include <gtest/gtest.h>

#include <cstring>

#include "vmm/assist/guest_virtual.h"
#include "vmm/assist/micro_guest_fixture.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

using testing::Code;

constexpr uint64_t kEntry = MicroGuest::kKernelCode + 0x800;     // LSTAR
constexpr uint64_t kHandler = MicroGuest::kKernelCode + 0xa00;   // of page faults
constexpr uint64_t kIoPrivilege = 3 << 12;
constexpr uint64_t kFlagMask = kFlagTrap | kFlagInterrupt | kFlagDirection | kFlagCarry |
                               kIoPrivilege | kFlagNestedTask | kFlagAlignmentCheck;
// mov kUnmappedPage, %eax
const Code kUserFault = {0x8b, 0x04, 0x25, 0x00, 0xc0, 0x03, 0x00};
static_assert(MicroGuest::kUnmappedPage == 0x3c000);
const Code kSyscall = {0x0f, 0x05};

Code operator+(Code first, const Code& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

Code Move32(uint8_t opcode, uint64_t value) {
  Code code = {opcode};
  for (int i = 0; i < 4; ++i) code.push_back(static_cast<uint8_t>(value >> i * 8));
  return code;
}

// mov $msr, %ecx; mov $low, %eax; mov $high, %edx; wrmsr
Code WriteMsr(uint32_t msr, uint64_t value) {
  return Move32(0xb9, msr) + Move32(0xb8, value) + Move32(0xba, value >> 32) + Code{0x0f, 0x30};
}

class SyscallRepairTest : public testing::MicroGuestTest {
 protected:
  static Code Done() { return {std::begin(kDone), std::end(kDone)}; }

  // Ring 0 sets the MSRs, so that the writes exit; SYSCALL then runs `entry`.
  void PrepareSyscalls(const Code& entry) {
    guest_->memory().Write(kEntry, entry);
    EXPECT_DONE(Run(WriteMsr(kMsrStar, MicroGuest::kStar) + WriteMsr(kMsrSyscallMask, kFlagMask) +
                    WriteMsr(kMsrLstar, kEntry)));
  }
  // Page faults are handled by `first`, then by what tells the test. Before PrepareSyscalls(), which
  // looks for the handler.
  void SetFaultHandler(const Code& first) {
    const Code tell = {0xe6, MicroGuest::kExceptionPort + kVectorPageFault, 0xf4};
    guest_->memory().Write(kHandler, first + tell);
    ASSERT_TRUE(guest_->StartKernel().ok());
    uint64_t gate = guest_->Peek<uint64_t>(Gate(kVectorPageFault));
    constexpr uint64_t kOffset = 0xffff'0000'0000'ffff;
    static_assert(kHandler >> 32 == 0);
    gate = (gate & ~kOffset) | (kHandler & 0xffff) | (kHandler >> 16) << 48;
    guest_->Poke(Gate(kVectorPageFault), gate);
  }
  void ExpectRing0() {
    EXPECT_EQ(sregs().cs.selector, MicroGuest::kKernelCodeSelector);
    EXPECT_EQ(sregs().cs.dpl, 0);
    EXPECT_EQ(sregs().cs.l, 1);
    EXPECT_EQ(sregs().ss.dpl, 0);
  }
};

TEST_F(SyscallRepairTest, SyscallArrivesAsTheProcessorBringsIt) {
  PrepareSyscalls(Done());
  // std; stc; mov $0x1234, %edi; syscall
  const Code user = {0xfd, 0xf9, 0xbf, 0x34, 0x12, 0x00, 0x00, 0x0f, 0x05};
  EXPECT_DONE(RunUser(user, [](kvm_regs& r) {
    r.rflags |= kFlagInterrupt | kFlagZero | kFlagAlignmentCheck;
    r.rsp -= 0x18;
    r.r15 = 0xfeedfacecafe;
  }));
  ExpectRing0();
  EXPECT_EQ(sregs().ss.selector, MicroGuest::kKernelDataSelector);
  EXPECT_EQ(regs().rip, kEntry + 2);
  EXPECT_EQ(regs().rcx, MicroGuest::kUserCode + user.size());
  const uint64_t flags = kFlagReserved | kFlagInterrupt | kFlagCarry | kFlagDirection | kFlagZero |
                         kFlagAlignmentCheck;
  EXPECT_EQ(regs().r11 & ~kFlagResume, flags);
  EXPECT_EQ(regs().rflags, flags & ~kFlagMask);
  EXPECT_EQ(regs().rsp, MicroGuest::kUserStackTop - 0x18) << "the stack stays the user's";
  EXPECT_EQ(regs().rdi, 0x1234u);
  EXPECT_EQ(regs().r15, 0xfeedfacecafeu);
}

TEST_F(SyscallRepairTest, SysretGoesBack) {
  PrepareSyscalls(Move32(0xb8, 0x55) + Code{0x48, 0x0f, 0x07});  // mov $0x55, %eax; sysretq
  // stc; syscall; syscall; mov %rax, kDoorbell
  auto exit = RunUser(Code{0xf9} + kSyscall + kSyscall +
                      Code{0x48, 0x89, 0x04, 0x25, 0x00, 0x00, 0x1f, 0x00});
  EXPECT_KIND(exit, kDoorbell);
  EXPECT_EQ(exit.value, 0x55u);
  EXPECT_EQ(sregs().cs.selector, MicroGuest::kUserCodeSelector | 3);
  EXPECT_EQ(sregs().ss.selector, MicroGuest::kUserDataSelector | 3);
  EXPECT_EQ(sregs().cs.dpl, 3);
  EXPECT_EQ(regs().rsp, MicroGuest::kUserStackTop);
  EXPECT_NE(regs().rflags & kFlagCarry, 0u) << "masked on the way in, restored on the way out";
}

// What Linux builds of different age and configuration begin the handler with, and something that
// none begins with. Each must run once, and the next fault and the next SYSCALL be seen.
TEST_F(SyscallRepairTest, PageFaultsReachTheHandler) {
  const struct {
    const char* text;
    Code first;
    uint64_t cleared;  // flags
    uint64_t pushed;   // bytes
  } cases[] = {
      {"nop", {0x90}, 0, 0},
      {"nopl (%rax)", {0x0f, 0x1f, 0x00}, 0, 0},
      {"endbr64", {0xf3, 0x0f, 0x1e, 0xfa}, 0, 0},
      {"clac", {0x0f, 0x01, 0xca}, kFlagAlignmentCheck, 0},
      {"cld", {0xfc}, kFlagDirection, 0},
      {"push %rax", {0x50}, 0, 8},                      // by one single step
      {"popcnt %rbx, %rbx", {0xf3, 0x48, 0x0f, 0xb8, 0xdb}, 0, 0},  // by an assist
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    SetUp();  // a VM of its own: the handler is looked for only when LSTAR is written
    SetFaultHandler(c.first);
    PrepareSyscalls(Done());
    const uint64_t flags =
        kFlagReserved | kFlagInterrupt | kFlagDirection | kFlagAlignmentCheck;
    for (int i = 0; i < 3; ++i) {
      EXPECT_EXCEPTION(RunUser(kUserFault, [&](kvm_regs& r) { r.rflags = flags; }),
                       kVectorPageFault);
      ExpectRing0();
      EXPECT_EQ(regs().rsp, MicroGuest::kKernelStackTop - 48 - c.pushed);
      EXPECT_EQ(regs().rip, kHandler + c.first.size() + 2);
      EXPECT_EQ(regs().rflags & (c.cleared | kFlagInterrupt | kFlagTrap), 0u);
      EXPECT_EQ(regs().rflags & kFlagDirection, kFlagDirection & ~c.cleared);
      EXPECT_EQ(sregs().cr2, MicroGuest::kUnmappedPage);
      const uint64_t frame = c.pushed / 8;
      EXPECT_EQ(Frame(frame), kFaultUser);
      EXPECT_EQ(Frame(frame + 1), MicroGuest::kUserCode);
      EXPECT_EQ(Frame(frame + 2), MicroGuest::kUserCodeSelector | 3u);
      EXPECT_EQ(Frame(frame + 3) & ~kFlagResume, flags);
      EXPECT_EQ(Frame(frame + 4), MicroGuest::kUserStackTop);
      EXPECT_DONE(RunUser(kSyscall));
      EXPECT_EQ(regs().rip, kEntry + 2);
    }
  }
}

TEST_F(SyscallRepairTest, PageFaultsOfRing0ReachTheHandler) {
  SetFaultHandler({0x50});
  PrepareSyscalls(Done());
  EXPECT_EXCEPTION(Run(kUserFault), kVectorPageFault);
  EXPECT_EQ(Frame(1), 0u);
  EXPECT_EQ(Frame(2), MicroGuest::kKernelCode);
  EXPECT_EQ(Frame(3), MicroGuest::kKernelCodeSelector);
}

// A fault at LSTAR is a SYSCALL only if it was LSTAR's instruction that could not be fetched.
TEST_F(SyscallRepairTest, ReadingTheEntryIsARealFault) {
  PrepareSyscalls(Done());
  EXPECT_EXCEPTION(RunUser({0x8b, 0x03}, [](kvm_regs& r) { r.rbx = kEntry; }),  // mov (%rbx), %eax
                   kVectorPageFault);
  EXPECT_EQ(sregs().cr2, kEntry);
  EXPECT_EQ(Frame(0), kFaultPresent | kFaultUser);
  EXPECT_EQ(Frame(1), MicroGuest::kUserCode);
}

// A jump to LSTAR looks like a SYSCALL. It may be taken for one; it must not carry in flags that
// SYSCALL would not have brought.
TEST_F(SyscallRepairTest, JumpToTheEntryForgesNoFlags) {
  PrepareSyscalls(Done());
  auto exit = RunUser(Code{0xff, 0xe0}, [](kvm_regs& r) {  // jmp *%rax
    r.rax = kEntry;
    r.r11 = ~0ull;
    r.rcx = 0xdead;
  });
  if (exit.kind == Exit::Kind::kException) {
    EXPECT_EQ(exit.vector, kVectorPageFault);
    return;
  }
  EXPECT_KIND(exit, kDone);
  EXPECT_EQ(regs().rflags, kFlagReserved);
  EXPECT_EQ(regs().rsp, MicroGuest::kUserStackTop);
}

TEST_F(SyscallRepairTest, MsrsReadBackAndRefuseWhatTheProcessorRefuses) {
  PrepareSyscalls(Done());
  const struct {
    uint32_t msr;
    uint64_t value;
  } msrs[] = {
      {kMsrStar, MicroGuest::kStar}, {kMsrLstar, kEntry}, {kMsrSyscallMask, kFlagMask}};
  for (const auto& [msr, value] : msrs) {
    EXPECT_DONE(Run(Move32(0xb9, msr) + Code{0x0f, 0x32}));  // mov $msr, %ecx; rdmsr
    EXPECT_EQ(regs().rax | regs().rdx << 32, value);
  }
  EXPECT_EXCEPTION(Run(WriteMsr(kMsrLstar, 1ull << 60)), kVectorGeneralProtection);
  EXPECT_DONE(RunUser(kSyscall));
  EXPECT_EQ(regs().rip, kEntry + 2) << "a refused write was remembered";
}

// INT n of a program goes through its gate, if that is for programs, or is #GP with the gate's
// error code. KVM's emulator takes it for an invalid instruction.
TEST_F(SyscallRepairTest, SoftwareInterruptsOfAProgram) {
  PrepareSyscalls(Done());
  const uint64_t next = MicroGuest::kUserCode + 2;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EXCEPTION(RunUser({0xcd, kVectorBreakpoint}), kVectorBreakpoint);
    ExpectRing0();
    EXPECT_EQ(Frame(0), next);
    EXPECT_EQ(Frame(1), MicroGuest::kUserCodeSelector | 3u);
    EXPECT_EQ(Frame(3), MicroGuest::kUserStackTop);
    EXPECT_EQ(Frame(4), MicroGuest::kUserDataSelector | 3u);
    // Of ring 0 only, and beyond the IDT.
    for (uint8_t vector : {uint8_t{5}, kVectorInvalidOpcode, kVectorPageFault, uint8_t{0x80}}) {
      EXPECT_EXCEPTION(RunUser({0xcd, vector}), kVectorGeneralProtection);
      EXPECT_EQ(Frame(0), vector * 8u + 2);
      EXPECT_EQ(Frame(1), MicroGuest::kUserCode);
      EXPECT_EQ(regs().rsp, MicroGuest::kKernelStackTop - 48);
    }
    // What is invalid stays so, and SYSCALL what it is.
    EXPECT_EXCEPTION(RunUser({0x0f, 0x0b}), kVectorInvalidOpcode);
    EXPECT_EQ(Frame(0), MicroGuest::kUserCode);
    EXPECT_EQ(regs().rsp, MicroGuest::kKernelStackTop - 40);
    EXPECT_EXCEPTION(Run({0x0f, 0x0b}), kVectorInvalidOpcode);
    EXPECT_DONE(RunUser(kSyscall));
    EXPECT_EQ(regs().rip, kEntry + 2);
  }
}

// User mode's AVX registers live through a switch of tasks as Linux makes it: XSAVES on the way out,
// XRSTORS of another state and of the saved one on the way in.
TEST_F(SyscallRepairTest, WideRegistersSurviveATaskSwitch) {
  constexpr uint64_t kSaved = MicroGuest::kKernelData;
  constexpr uint64_t kOther = MicroGuest::kKernelData + 0x2000;
  constexpr uint64_t kIn = MicroGuest::kUserData, kOut = MicroGuest::kUserData + 64;
  // rsi and rdi point to the areas; rcx and r11 are SYSRET's.
  // mov $-1, %eax; mov %eax, %edx; xsaves64 (%rsi); xrstors64 (%rdi); xrstors64 (%rsi); sysretq
  const Code other = {0x48, 0x0f, 0xc7, 0x1f};
  const Code entry = Move32(0xb8, 0xffffffff) + Code{0x89, 0xc2, 0x48, 0x0f, 0xc7, 0x2e};
  const Code back = {0x48, 0x0f, 0xc7, 0x1e, 0x48, 0x0f, 0x07};
  // vmovups (kIn), %ymm7; syscall; vmovups %ymm7, (kOut); mov %eax, kDoorbell
  const Code user = Code{0xc5, 0xfc, 0x10, 0x3b} + kSyscall +
                    Code{0xc5, 0xfc, 0x11, 0x7b, 0x40, 0x89, 0x04, 0x25, 0x00, 0x00, 0x1f, 0x00};
  static_assert(kOut == kIn + 0x40);
  uint8_t pattern[32];
  for (size_t i = 0; i < sizeof pattern; ++i) pattern[i] = static_cast<uint8_t>(0x80 + i * 3);
  auto run = [&](const Code& kernel) {
    guest_->memory().Write(kIn, pattern);
    guest_->Poke<uint64_t>(kOther + 520, 1ull << 63 | 7);  // nothing in use, compacted
    PrepareSyscalls(kernel);
    auto exit = RunUser(user, [&](kvm_regs& r) {
      r.rsi = kSaved;
      r.rdi = kOther;
      r.rbx = kIn;
    });
    EXPECT_KIND(exit, kDoorbell);
    uint8_t seen[32];
    guest_->memory().Read(kOut, seen);
    return memcmp(seen, pattern, sizeof seen) == 0;
  };
  EXPECT_TRUE(run(entry + other + back));
  // The other task's state was really another.
  EXPECT_FALSE(run(entry + other + Code{0x48, 0x0f, 0x07}));
}

}  // namespace
}  // namespace cube::vmm
