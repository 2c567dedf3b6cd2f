#include "vmm/kvm/kvm_vcpu.h"

#include <gtest/gtest.h>

#include "vmm/kvm/kvm.h"

namespace cube::vmm {
namespace {

// As after an exit at which KVM still took an interrupt for one to deliver, which it has delivered.
TEST(KvmVcpu, RegistersThatAreWrittenBackQueueNoInterrupt) {
  constexpr uint8_t kVector = 68;
  auto kvm = Kvm::Open();
  ASSERT_TRUE(kvm.ok()) << kvm.error().message();
  auto vm = kvm->CreateVm();
  ASSERT_TRUE(vm.ok()) << vm.error().message();
  ASSERT_TRUE(vm->CreateIrqchip().ok());
  auto vcpu = vm->CreateVcpu(0);
  ASSERT_TRUE(vcpu.ok()) << vcpu.error().message();
  auto events = vcpu->GetEvents();
  ASSERT_TRUE(events.ok());
  events->interrupt.injected = 1;
  events->interrupt.nr = kVector;
  ASSERT_TRUE(vcpu->SetEvents(*events).ok());
  auto sregs = vcpu->mutable_sregs();
  ASSERT_TRUE(sregs.ok());
  EXPECT_EQ((*sregs)->interrupt_bitmap[kVector / 64], 1u << kVector % 64);
  (*sregs)->cr2 = 0x1000;
  events->interrupt.injected = 0;
  ASSERT_TRUE(vcpu->SetEvents(*events).ok());
  ASSERT_TRUE(vcpu->FlushRegistersNow().ok());
  events = vcpu->GetEvents();
  ASSERT_TRUE(events.ok());
  EXPECT_EQ(events->interrupt.injected, 0);
}

TEST(KvmVcpu, RegistersThatAreWrittenBackLeaveAQueuedInterrupt) {
  auto kvm = Kvm::Open();
  ASSERT_TRUE(kvm.ok()) << kvm.error().message();
  auto vm = kvm->CreateVm();
  ASSERT_TRUE(vm.ok()) << vm.error().message();
  ASSERT_TRUE(vm->CreateIrqchip().ok());
  auto vcpu = vm->CreateVcpu(0);
  ASSERT_TRUE(vcpu.ok()) << vcpu.error().message();
  auto sregs = vcpu->mutable_sregs();
  ASSERT_TRUE(sregs.ok());
  (*sregs)->cr2 = 0x1000;
  auto events = vcpu->GetEvents();
  ASSERT_TRUE(events.ok());
  events->interrupt.injected = 1;
  events->interrupt.nr = 68;
  ASSERT_TRUE(vcpu->SetEvents(*events).ok());
  ASSERT_TRUE(vcpu->FlushRegistersNow().ok());
  events = vcpu->GetEvents();
  ASSERT_TRUE(events.ok());
  EXPECT_EQ(events->interrupt.injected, 1);
  EXPECT_EQ(events->interrupt.nr, 68);
}

}  // namespace
}  // namespace cube::vmm
