#include "vmm/kvm/kvm_vcpu.h"

#include <gtest/gtest.h>

#include <optional>
#include <utility>

#include "vmm/kvm/kvm.h"

namespace cube::vmm {
namespace {

constexpr uint8_t kVector = 68;

class KvmVcpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto kvm = Kvm::Open();
    ASSERT_TRUE(kvm.ok()) << kvm.error().message();
    auto vm = kvm->CreateVm();
    ASSERT_TRUE(vm.ok()) << vm.error().message();
    vm_.emplace(std::move(*vm));
    ASSERT_TRUE(vm_->CreateIrqchip().ok());
    auto vcpu = vm_->CreateVcpu(0);
    ASSERT_TRUE(vcpu.ok()) << vcpu.error().message();
    vcpu_.emplace(std::move(*vcpu));
  }
  void SetQueued(bool queued) {
    auto events = vcpu_->GetEvents();
    ASSERT_TRUE(events.ok());
    events->interrupt.injected = queued;
    events->interrupt.nr = kVector;
    ASSERT_TRUE(vcpu_->SetEvents(*events).ok());
  }
  kvm_sregs* Registers() {
    auto sregs = vcpu_->mutable_sregs();
    EXPECT_TRUE(sregs.ok());
    return *sregs;
  }
  void ExpectQueued(bool queued) {
    auto events = vcpu_->GetEvents();
    ASSERT_TRUE(events.ok());
    EXPECT_EQ(events->interrupt.injected, queued);
    EXPECT_EQ(events->interrupt.nr, queued ? kVector : events->interrupt.nr);
  }

  std::optional<KvmVm> vm_;
  std::optional<KvmVcpu> vcpu_;
};

// As after an exit at which KVM still took an interrupt for one to deliver, which it has delivered.
TEST_F(KvmVcpuTest, RegistersThatAreWrittenBackQueueNoInterrupt) {
  SetQueued(true);
  kvm_sregs* sregs = Registers();
  EXPECT_EQ(sregs->interrupt_bitmap[kVector / 64], 1u << kVector % 64);
  sregs->cr2 = 0x1000;
  SetQueued(false);
  ASSERT_TRUE(vcpu_->FlushRegistersNow().ok());
  ExpectQueued(false);
}

TEST_F(KvmVcpuTest, RegistersThatAreWrittenBackLeaveAQueuedInterrupt) {
  Registers()->cr2 = 0x1000;
  SetQueued(true);
  ASSERT_TRUE(vcpu_->FlushRegistersNow().ok());
  ExpectQueued(true);
}

}  // namespace
}  // namespace cube::vmm
