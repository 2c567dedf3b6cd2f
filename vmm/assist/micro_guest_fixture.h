#ifndef CUBE_VMM_ASSIST_MICRO_GUEST_FIXTURE_H_
#define CUBE_VMM_ASSIST_MICRO_GUEST_FIXTURE_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <vector>

#include "vmm/assist/micro_guest.h"
#include "vmm/segments.h"

// What the tests of the assist layer share: they run a few instructions on the host's KVM. Where
// KVM executes ring 0 itself the same tests hold: the processor is then what they check.
namespace cube::vmm::testing {

using Code = std::vector<uint8_t>;
using Prepare = std::function<void(kvm_regs&)>;

class MicroGuestTest : public ::testing::Test {
 protected:
  using Exit = MicroGuest::Exit;

  static constexpr uint64_t kData = MicroGuest::kKernelData;
  // out %al, $kDonePort; hlt
  static constexpr uint8_t kDone[] = {0xe6, MicroGuest::kDonePort, 0xf4};

  void SetUp() override {
    auto kvm = Kvm::Open();
    ASSERT_TRUE(kvm.ok()) << kvm.error().message();
    auto guest = MicroGuest::Create(*kvm, true);
    ASSERT_TRUE(guest.ok()) << guest.error().message();
    guest_ = std::move(guest).value();
  }

  // Runs `code` and then kDone in ring 0, with registers as `prepare` sets them.
  Exit Run(Code code, const Prepare& prepare = {}) {
    code.insert(code.end(), std::begin(kDone), std::end(kDone));
    guest_->SetKernelCode(code);
    EXPECT_TRUE(guest_->StartKernel().ok());
    return Go(prepare);
  }
  // Runs `code` in user mode; it must end by itself.
  Exit RunUser(const Code& code, const Prepare& prepare = {}) {
    guest_->SetUserCode(code);
    EXPECT_TRUE(guest_->StartUser().ok());
    return Go(prepare);
  }

  const kvm_regs& regs() { return *guest_->vcpu().regs().value(); }
  const kvm_sregs& sregs() { return *guest_->vcpu().sregs().value(); }
  // Word `index` of the stack: of an exception's frame, when its stub has been reached.
  uint64_t Frame(uint64_t index) { return guest_->Peek<uint64_t>(regs().rsp + 8 * index); }
  // Where vector `vector` has its gate in the IDT.
  uint64_t Gate(uint8_t vector) { return sregs().idt.base + 16u * vector; }

  std::unique_ptr<MicroGuest> guest_;

 private:
  Exit Go(const Prepare& prepare) {
    if (prepare) prepare(*guest_->vcpu().mutable_regs().value());
    auto exit = guest_->Run();
    EXPECT_TRUE(exit.ok()) << exit.error().message();
    return exit.ok() ? *exit : Exit{};
  }
};

#define EXPECT_KIND(exit, expected)                     \
  EXPECT_EQ(static_cast<int>((exit).kind),              \
            static_cast<int>(MicroGuest::Exit::Kind::expected)) \
      << "exit reason " << (exit).reason << ", vector " << int{(exit).vector}
// These two evaluate `exit` once.
#define EXPECT_DONE(exit)                  \
  do {                                     \
    const MicroGuest::Exit exit_ = (exit); \
    EXPECT_KIND(exit_, kDone);             \
  } while (false)
#define EXPECT_EXCEPTION(exit, number)              \
  do {                                              \
    const MicroGuest::Exit exit_ = (exit);          \
    EXPECT_KIND(exit_, kException);                 \
    EXPECT_EQ(int{exit_.vector}, int{number});      \
  } while (false)

}  // namespace cube::vmm::testing

#endif  // CUBE_VMM_ASSIST_MICRO_GUEST_FIXTURE_H_
