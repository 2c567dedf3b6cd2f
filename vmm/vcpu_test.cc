#include "vmm/vcpu.h"

#include <gtest/gtest.h>

#include <semaphore>
#include <utility>
#include <vector>

#include "base/control_abi.h"
#include "vmm/assist/micro_guest.h"

namespace cube::vmm {
namespace {

// Has the vCPU told to stop while it is answering the first access.
class StopsAtFirst : public BusDevice {
 public:
  struct Access {
    uint64_t offset;
    size_t size;
    bool operator==(const Access&) const = default;
  };

  void Read(uint64_t, std::span<uint8_t>) override {}
  void Write(uint64_t offset, std::span<const uint8_t> data) override {
    writes_.push_back({offset, data.size()});
    if (writes_.size() > 1) return;
    reached_.release();
    told_.acquire();
  }
  void AwaitFirst() { reached_.acquire(); }
  void GoOn() { told_.release(); }
  const std::vector<Access>& writes() const { return writes_; }

 private:
  std::vector<Access> writes_;
  std::binary_semaphore reached_{0}, told_{0};
};

// KVM hands over 16 bytes of MMIO in two parts, each an exit: who stops between them still has all
// of the instruction, once, and the registers after it.
TEST(VcpuTest, AnInstructionOfSeveralExitsIsFinishedBeforeTheStop) {
  ASSERT_TRUE(Vcpu::InstallKickSignal().ok());
  auto kvm = Kvm::Open();
  ASSERT_TRUE(kvm.ok()) << kvm.error().message();
  auto guest = MicroGuest::Create(*kvm, false);
  ASSERT_TRUE(guest.ok()) << guest.error().message();
  const uint8_t code[] = {
      0xbf, 0x00, 0x00, 0x1f, 0x00,  // mov $kDoorbell, %edi
      0x66, 0x0f, 0x7f, 0x07,        // movdqa %xmm0, (%rdi)
      0xf4,                          // hlt
  };
  static_assert(MicroGuest::kDoorbell == 0x1f0000);
  (*guest)->SetKernelCode(code);
  ASSERT_TRUE((*guest)->StartKernel().ok());
  StopsAtFirst device;
  Bus ports, mmio;
  ASSERT_TRUE(mmio.Attach(abi::kDoorbellAddress, 4096, &device).ok());
  std::string why;
  Vcpu vcpu(
      std::move((*guest)->vcpu()), {},
      {.ports = &ports, .mmio = &mmio, .memory = &(*guest)->memory(), .stop = [&](StopReason r) {
         why = r.text;
       }});
  ASSERT_TRUE(vcpu.Start().ok());
  device.AwaitFirst();
  vcpu.RequestStop();
  device.GoOn();
  vcpu.Join();
  EXPECT_EQ(why, "");
  const std::vector<StopsAtFirst::Access> both = {{0, 8}, {8, 8}};
  EXPECT_EQ(device.writes(), both);
  auto regs = vcpu.kvm().regs();
  ASSERT_TRUE(regs.ok());
  EXPECT_EQ((*regs)->rip, MicroGuest::kKernelCode + sizeof code - 1);
}

}  // namespace
}  // namespace cube::vmm
