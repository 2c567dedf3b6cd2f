// What the assist layer raises, and how it arrives, in ring 0 of a micro guest.
#include "vmm/assist/exception_delivery.h"

#include <gtest/gtest.h>

#include "vmm/assist/micro_guest_fixture.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

using testing::Code;

constexpr Code::value_type kInt = 0xcd;
constexpr uint64_t kGatePresent = 1ull << 47;
constexpr uint64_t kGateFirstStack = 1ull << 32;

class ExceptionDeliveryTest : public testing::MicroGuestTest {
 protected:
  // Changes the first half of a gate. Run() has loaded the IDT's address before.
  void ChangeGate(uint8_t vector, uint64_t clear, uint64_t set) {
    ASSERT_TRUE(guest_->StartKernel().ok());
    guest_->Poke(Gate(vector), (guest_->Peek<uint64_t>(Gate(vector)) & ~clear) | set);
  }
};

TEST_F(ExceptionDeliveryTest, BreakpointTrapsAfterTheInstruction) {
  EXPECT_EXCEPTION(Run({0xcc}, [](kvm_regs& r) { r.rsp -= 8; }),  // int3, on an unaligned stack
                   kVectorBreakpoint);
  EXPECT_EQ(Frame(0), MicroGuest::kKernelCode + 1);
  EXPECT_EQ(Frame(1), MicroGuest::kKernelCodeSelector);
  EXPECT_EQ(Frame(3), MicroGuest::kKernelStackTop - 8);
  EXPECT_EQ((regs().rsp + 40) % 16, 0u);
}

TEST_F(ExceptionDeliveryTest, SoftwareInterrupt) {
  EXPECT_EXCEPTION(Run({kInt, 29}, [](kvm_regs& r) { r.rflags |= kFlagInterrupt | kFlagCarry; }), 29);
  EXPECT_EQ(Frame(0), MicroGuest::kKernelCode + 2);
  EXPECT_EQ(Frame(1), MicroGuest::kKernelCodeSelector);
  EXPECT_EQ(Frame(2), kFlagReserved | kFlagInterrupt | kFlagCarry);
  EXPECT_EQ(Frame(3), MicroGuest::kKernelStackTop);
  EXPECT_EQ(Frame(4), MicroGuest::kKernelDataSelector);
  // By an interrupt gate; and a page fault's vector brings no error code along.
  EXPECT_EQ(regs().rflags & kFlagInterrupt, 0u);
  EXPECT_EXCEPTION(Run({kInt, kVectorGeneralProtection}), kVectorGeneralProtection);
  EXPECT_EQ(Frame(0), MicroGuest::kKernelCode + 2);
}

TEST_F(ExceptionDeliveryTest, TrapGateLeavesInterruptsOn) {
  ChangeGate(29, 0, 1ull << 40);
  EXPECT_EXCEPTION(Run({kInt, 29}, [](kvm_regs& r) { r.rflags |= kFlagInterrupt; }), 29);
  EXPECT_NE(regs().rflags & kFlagInterrupt, 0u);
}

TEST_F(ExceptionDeliveryTest, InterruptStackTable) {
  ChangeGate(29, 0, kGateFirstStack);
  EXPECT_EXCEPTION(Run({kInt, 29}), 29);
  EXPECT_EQ(regs().rsp, MicroGuest::kIstStackTop - 40);
  EXPECT_EQ(Frame(3), MicroGuest::kKernelStackTop);
}

// A gate that cannot be used is a fault of the instruction that named it.
TEST_F(ExceptionDeliveryTest, GatesThatCannotBeUsed) {
  EXPECT_EXCEPTION(Run({kInt, 0x99}), kVectorGeneralProtection);  // beyond the IDT
  EXPECT_EQ(Frame(0), 0x99u * 8 + 2);
  EXPECT_EQ(Frame(1), MicroGuest::kKernelCode);
  ChangeGate(29, kGatePresent, 0);
  EXPECT_EXCEPTION(Run({kInt, 29}), kVectorSegmentNotPresent);
  EXPECT_EQ(Frame(0), 29u * 8 + 2);
  EXPECT_EQ(Frame(1), MicroGuest::kKernelCode);
  ChangeGate(29, 0x1full << 40, kGatePresent | 0x0cull << 40);  // a call gate
  EXPECT_EXCEPTION(Run({kInt, 29}), kVectorGeneralProtection);
  EXPECT_EQ(Frame(0), 29u * 8 + 2);
  // Raised by the processor and not by INT: the error code says "external".
  ChangeGate(kVectorBreakpoint, kGatePresent, 0);
  EXPECT_EXCEPTION(Run({0xcc}), kVectorSegmentNotPresent);
  EXPECT_EQ(Frame(0), kVectorBreakpoint * 8u + 2);
  ChangeGate(kVectorPageFault, kGatePresent, 0);
  ChangeGate(kVectorDoubleFault, 0, kGateFirstStack);
  EXPECT_EXCEPTION(Run({0xf3, 0x48, 0x0f, 0xb8, 0x06},  // popcnt (%rsi), %rax
                       [](kvm_regs& r) { r.rsi = MicroGuest::kUnmappedPage; }),
                   kVectorDoubleFault);
  EXPECT_EQ(Frame(0), 0u);
  EXPECT_EQ(sregs().cr2, MicroGuest::kUnmappedPage);
}

// How Linux finds out that a kernel stack has overflowed.
TEST_F(ExceptionDeliveryTest, NoStackIsADoubleFaultOnItsOwn) {
  ChangeGate(kVectorDoubleFault, 0, kGateFirstStack);
  const uint64_t top = MicroGuest::kUnmappedPage + 0x800;
  EXPECT_EXCEPTION(Run({0xcc}, [&](kvm_regs& r) { r.rsp = top; }), kVectorDoubleFault);
  EXPECT_EQ(regs().rsp, MicroGuest::kIstStackTop - 48);
  EXPECT_EQ(Frame(4), top);
  EXPECT_EQ(sregs().cr2 / 4096, MicroGuest::kUnmappedPage / 4096);
}

TEST_F(ExceptionDeliveryTest, NoStackForADoubleFaultStopsTheVm) {
  auto exit = Run({0xcc}, [](kvm_regs& r) { r.rsp = MicroGuest::kUnmappedPage + 0x800; });
  EXPECT_KIND(exit, kKvm);
}

// Undefined by name, by the processor's word, and in 64-bit mode.
TEST_F(ExceptionDeliveryTest, InvalidOpcodes) {
  const struct {
    const char* text;
    Code code;
  } cases[] = {
      {"ud0", {0x0f, 0xff, 0xc0}},
      {"ud1", {0x0f, 0xb9, 0xc0}},
      {"ud2", {0x0f, 0x0b}},
      {"push %es", {0x06}},
      {"lock popcnt", {0xf0, 0xf3, 0x48, 0x0f, 0xb8, 0xc1}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    EXPECT_EXCEPTION(Run(c.code), kVectorInvalidOpcode);
    EXPECT_EQ(Frame(0), MicroGuest::kKernelCode);
    EXPECT_EQ(Frame(3), MicroGuest::kKernelStackTop);
  }
}

}  // namespace
}  // namespace cube::vmm
