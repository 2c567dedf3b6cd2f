#ifndef CUBE_VMM_ASSIST_MICRO_GUEST_H_
#define CUBE_VMM_ASSIST_MICRO_GUEST_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "vmm/assist/ring0_assist.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm.h"

namespace cube::vmm {

// A guest of a few instructions: 2 MiB in 64-bit mode with a GDT, an IDT, a TSS, and a page each for
// code and data of ring 0 and of user mode. What the host's KVM really does is found out with it,
// by the probe at start-up and by the tests of the assist layer. One thread.
class MicroGuest {
 public:
  // Virtual addresses, equal to the physical ones but for the doorbell.
  static constexpr uint64_t kKernelStackTop = 0x9000;
  static constexpr uint64_t kIstStackTop = 0xb000;
  static constexpr uint64_t kKernelCode = 0x10000;
  static constexpr uint64_t kKernelData = 0x14000;
  static constexpr uint64_t kUserCode = 0x20000;
  static constexpr uint64_t kUserData = 0x24000;
  static constexpr uint64_t kUserStackTop = 0x30000;
  static constexpr uint64_t kReadOnlyPage = 0x38000;
  static constexpr uint64_t kUnmappedPage = 0x3c000;
  static constexpr uint64_t kDoorbell = 0x1f0000;
  static constexpr uint64_t kSize = 2 << 20;

  static constexpr uint16_t kKernelCodeSelector = 0x10;
  static constexpr uint16_t kKernelDataSelector = 0x18;
  static constexpr uint16_t kUserDataSelector = 0x28;
  static constexpr uint16_t kUserCodeSelector = 0x30;
  static constexpr uint16_t kTssSelector = 0x38;
  // STAR for these selectors: SYSCALL to kKernelCodeSelector, SYSRET to 0x20 + 16 and 0x20 + 8.
  static constexpr uint64_t kStar = 0x0020ull << 48 | 0x0010ull << 32;

  // Port that ends a run from ring 0; the exception stubs write to kExceptionPort + vector.
  static constexpr uint16_t kDonePort = 0xf4;
  static constexpr uint16_t kExceptionPort = 0xc0;

  struct Exit {
    enum class Kind {
      kDone,        // ring 0 wrote to kDonePort
      kException,   // an exception reached its stub; `vector`, the frame is at RSP
      kDoorbell,    // user mode stored to kDoorbell; `value`
      kKvm,         // any other exit, `reason` as in kvm_run, and nobody handled it
    };
    Kind kind = Kind::kKvm;
    uint8_t vector = 0;
    uint64_t value = 0;
    uint32_t reason = 0;
  };

  // With `assist`, the assist layer handles what it can. With `irqchip`, KVM has interrupt
  // controllers for it, and a HLT waits inside KVM.
  static Result<std::unique_ptr<MicroGuest>> Create(const Kvm& kvm, bool assist,
                                                    bool irqchip = false);

  // Puts code where ring 0 or user mode will run it.
  void SetKernelCode(std::span<const uint8_t> code);
  void SetUserCode(std::span<const uint8_t> code);
  // Enters ring 0 at kKernelCode, or user mode at kUserCode, with all other registers zero.
  Status StartKernel();
  Status StartUser();
  // Runs until an exit that has a meaning; at most `limit` exits are handled on the way.
  Result<Exit> Run(int limit = 1000);
  // What an exit of a vCPU means, if it is one of those that end a run.
  static std::optional<Exit> MeaningOf(const kvm_run& run);

  const KvmVm& vm() const { return vm_; }
  KvmVcpu& vcpu() { return *vcpu_; }
  GuestMemory& memory() { return memory_; }
  Ring0Assist* assist() { return assist_.get(); }
  const std::vector<kvm_cpuid_entry2>& cpuid() const { return cpuid_; }
  template <typename T>
  T Peek(uint64_t address) const {
    return memory_.ReadObject<T>(address).value();
  }
  template <typename T>
  void Poke(uint64_t address, const T& value) const {
    memory_.WriteObject(address, value);
  }

 private:
  MicroGuest(Mapping mapping, KvmVm vm);

  Status BuildTables();
  Status Enter(uint64_t rip, uint64_t rsp, uint16_t code, uint16_t data, uint8_t privilege);

  Mapping mapping_;
  GuestMemory memory_;
  KvmVm vm_;
  std::vector<kvm_cpuid_entry2> cpuid_;
  std::unique_ptr<KvmVcpu> vcpu_;
  std::unique_ptr<Ring0Assist> assist_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_MICRO_GUEST_H_
