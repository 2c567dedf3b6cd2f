#include "vmm/pit_on_demand.h"

#include <gtest/gtest.h>

#include "vmm/kvm/kvm.h"

namespace cube::vmm {
namespace {

// As Linux leaves them once it has a better timer: all masked, the counter loaded for one shot.
VmState Idle() {
  VmState state;
  state.chips[KVM_IRQCHIP_PIC_MASTER].chip.pic.imr = 0xff;
  for (auto& entry : state.chips[KVM_IRQCHIP_IOAPIC].chip.ioapic.redirtbl) entry.fields.mask = 1;
  return state;
}

TEST(PitOnDemandTest, IsIdleIfNothingHearsItAndItDoesNotRepeat) {
  EXPECT_TRUE(PitOnDemand::IsIdle(Idle()));
  VmState state = Idle();
  state.chips[KVM_IRQCHIP_PIC_MASTER].chip.pic.imr = 0xfe;
  EXPECT_FALSE(PitOnDemand::IsIdle(state));
  for (int pin : {0, 2}) {
    state = Idle();
    state.chips[KVM_IRQCHIP_IOAPIC].chip.ioapic.redirtbl[pin].fields.mask = 0;
    EXPECT_FALSE(PitOnDemand::IsIdle(state)) << pin;
  }
  for (uint8_t mode : {2, 3, 6, 7}) {
    state = Idle();
    state.pit.channels[0].mode = mode;
    EXPECT_FALSE(PitOnDemand::IsIdle(state)) << int{mode};
  }
  state.pit.channels[0].mode = 4;
  EXPECT_TRUE(PitOnDemand::IsIdle(state));
}

TEST(PitOnDemandTest, IsMadeForItsOwnPortsOnceAndAsItWas) {
  auto kvm = Kvm::Open();
  ASSERT_TRUE(kvm.ok()) << kvm.error().message();
  auto vm = kvm->CreateVm();
  ASSERT_TRUE(vm.ok() && vm->CreateIrqchip().ok());
  kvm_pit_state2 state = {};
  state.channels[2].mode = 3;
  state.channels[2].count = 0x4321;
  PitOnDemand pit;
  pit.Defer(state);
  for (uint16_t port : {0x3f, 0x44, 0x60, 0x62}) {
    ASSERT_TRUE(pit.OnPort(*vm, port).ok());
    EXPECT_FALSE(vm->GetPit().ok()) << port;
  }
  auto captured = VmState::Capture(*vm, pit.deferred());
  ASSERT_TRUE(captured.ok()) << captured.error().message();
  EXPECT_EQ(captured->pit.channels[2].count, 0x4321u);
  for (uint16_t port : {0x61, 0x40, 0x43}) ASSERT_TRUE(pit.OnPort(*vm, port).ok()) << port;
  auto made = vm->GetPit();
  ASSERT_TRUE(made.ok()) << made.error().message();
  EXPECT_EQ(made->channels[2].mode, 3);
  EXPECT_EQ(made->channels[2].count, 0x4321u);
  EXPECT_FALSE(pit.deferred().has_value());
}

}  // namespace
}  // namespace cube::vmm
