#include "vmm/assist/host_probe.h"

#include <gtest/gtest.h>

namespace cube::vmm {
namespace {

TEST(HostProbe, GivesAVerdictThatItsPartsAgreeOn) {
  auto kvm = Kvm::Open();
  ASSERT_TRUE(kvm.ok()) << kvm.error().message();
  auto probe = ProbeHost(*kvm);
  ASSERT_TRUE(probe.ok()) << probe.error().message();
  // A KVM that lacks instructions in ring 0 emulates it, and then SYSCALL is its too.
  EXPECT_EQ(probe->runs_every_instruction, probe->syscall_enters_ring0);
  EXPECT_GT(probe->ring0_nanoseconds, 0);
  EXPECT_GT(probe->user_nanoseconds, 0);
  RecordProperty("ring0_ns", std::to_string(probe->ring0_nanoseconds));
  printf("ring 0 %s, %.2f ns an instruction (user mode %.2f ns)\n",
         probe->emulated_ring0() ? "emulated" : "native", probe->ring0_nanoseconds,
         probe->user_nanoseconds);
}

TEST(HostProbe, MissingKvmIsAClearError) {
  auto kvm = Kvm::Open("/nonexistent/kvm");
  ASSERT_FALSE(kvm.ok());
  EXPECT_EQ(kvm.error().message(), "cannot open /nonexistent/kvm: No such file or directory");
  auto null = Kvm::Open("/dev/null");
  ASSERT_FALSE(null.ok());
  EXPECT_EQ(null.error().message(),
            "/dev/null does not answer as KVM: Inappropriate ioctl for device");
}

}  // namespace
}  // namespace cube::vmm
