#include "devices/serial/serial.h"

#include <gtest/gtest.h>

#include <string>

namespace cube::devices {
namespace {

class SerialTest : public ::testing::Test {
 protected:
  uint8_t In(uint64_t offset) {
    uint8_t value = 0;
    serial_.Read(offset, {&value, 1});
    return value;
  }
  void Out(uint64_t offset, uint8_t value) { serial_.Write(offset, {&value, 1}); }
  uint64_t Interrupts() { return DrainEventFd(serial_.irq().eventfd()); }
  size_t Type(std::string_view text) {
    return serial_.Receive({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }

  std::string sent_;
  Serial serial_{vmm::IrqLine::Create().value(),
                 [this](uint8_t byte) { sent_ += static_cast<char>(byte); }};
};

TEST_F(SerialTest, SendsAndIsAlwaysReadyToSend) {
  for (char c : std::string("hi")) {
    EXPECT_EQ(In(5), 0x60);
    Out(0, static_cast<uint8_t>(c));
  }
  EXPECT_EQ(sent_, "hi");
  EXPECT_EQ(Interrupts(), 0u);
}

TEST_F(SerialTest, TheTransmitInterruptComesOnEnablingAndAfterEachByteOnceSeen) {
  Out(1, 2);
  EXPECT_EQ(Interrupts(), 1u);
  EXPECT_EQ(In(2) & 0xf, 2);
  EXPECT_EQ(In(2) & 0xf, 1);
  Out(0, 'x');
  EXPECT_EQ(Interrupts(), 1u);
  Out(0, 'y');
  EXPECT_EQ(Interrupts(), 1u);
  EXPECT_EQ(In(2) & 0xf, 2);
}

TEST_F(SerialTest, ReceivesInOrderAndInterruptsUntilEmpty) {
  Out(1, 1);
  EXPECT_EQ(Type("ab"), 2u);
  EXPECT_EQ(Interrupts(), 1u);
  EXPECT_EQ(In(5) & 1, 1);
  EXPECT_EQ(In(2) & 0xf, 4);
  EXPECT_EQ(In(0), 'a');
  EXPECT_EQ(Interrupts(), 0u);
  EXPECT_EQ(In(0), 'b');
  EXPECT_EQ(In(2) & 0xf, 1);
  EXPECT_EQ(Type("c"), 1u);
  EXPECT_EQ(Interrupts(), 1u);
  EXPECT_EQ(In(0), 'c');
  EXPECT_EQ(In(5) & 1, 0);
  EXPECT_EQ(In(0), 0);
}

// KVM passes an interrupt on some time after it was triggered: what was frozen meanwhile has not
// seen it, and never will unless it comes again.
TEST_F(SerialTest, AnInterruptThatWasOnItsWayComesAgain) {
  Out(1, 1);
  Type("a");
  EXPECT_EQ(Interrupts(), 1u);
  StateWriter state;
  serial_.Save(&state);
  Serial restored(vmm::IrqLine::Create().value(), [](uint8_t) {});
  StateReader reader(state.bytes(), "serial");
  ASSERT_TRUE(restored.Load(&reader).ok());
  restored.Resume();
  EXPECT_EQ(DrainEventFd(restored.irq().eventfd()), 1u);

  EXPECT_EQ(In(0), 'a');
  serial_.Resume();
  EXPECT_EQ(Interrupts(), 0u);
}

TEST_F(SerialTest, TheReceiveQueueIsBounded) {
  EXPECT_EQ(Type(std::string(5000, 'z')), Serial::kReceiveLimit);
  EXPECT_EQ(Type("more"), 0u);
  EXPECT_EQ(serial_.ReceiveBacklog(), Serial::kReceiveLimit);
}

TEST_F(SerialTest, DriversCanProbeIt) {
  Out(3, 0x80);  // divisor latch
  Out(0, 1);
  Out(1, 0);
  EXPECT_EQ(In(0), 1);
  Out(3, 3);
  EXPECT_EQ(sent_, "");
  Out(7, 0xa5);
  EXPECT_EQ(In(7), 0xa5);
  Out(2, 1);
  EXPECT_EQ(In(2) & 0xc0, 0xc0);
  Out(4, 0x1a);
  EXPECT_EQ(In(6) & 0xf0, 0x90);
  Out(0, 'l');  // loop-back
  EXPECT_EQ(In(0), 'l');
  EXPECT_EQ(sent_, "");
}

TEST_F(SerialTest, WideAndOutOfRangeAccessesAreHarmless) {
  std::array<uint8_t, 8> wide = {};
  serial_.Read(6, wide);
  EXPECT_EQ(wide[2], 0xff);
  serial_.Write(6, wide);
}

}  // namespace
}  // namespace cube::devices
