#include "vmm/assist/host_probe.h"

#include <time.h>

#include "vmm/assist/micro_guest.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

constexpr uint32_t kIterations = 2000;  // of two instructions; 3 ms where ring 0 is emulated
constexpr uint32_t kUserIterations = 200000;

double Nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// popcnt %rcx, %rax; out %al, $0xf4. KVM's emulator has no POPCNT.
constexpr uint8_t kPopcnt[] = {0xf3, 0x48, 0x0f, 0xb8, 0xc1, 0xe6, 0xf4};
// out %al, $0xf4
constexpr uint8_t kDone[] = {0xe6, 0xf4};
// syscall
constexpr uint8_t kSyscall[] = {0x0f, 0x05};
// mov $kIterations, %ecx; 1: dec %ecx; jnz 1b; out %al, $0xf4
constexpr uint8_t kLoop[] = {0xb9, kIterations & 0xff, kIterations >> 8, 0, 0,
                             0xff, 0xc9, 0x75, 0xfc, 0xe6, 0xf4};
// mov $kUserIterations, %ecx; 1: dec %ecx; jnz 1b; mov %eax, (kDoorbell)
constexpr uint8_t kUserLoop[] = {0xb9, kUserIterations & 0xff, kUserIterations >> 8 & 0xff,
                                 kUserIterations >> 16, 0, 0xff, 0xc9, 0x75, 0xfc,
                                 0x89, 0x04, 0x25, 0x00, 0x00, 0x1f, 0x00};
static_assert(MicroGuest::kDoorbell == 0x1f0000);

}  // namespace

Result<HostProbe> ProbeHost(const Kvm& kvm) {
  using Kind = MicroGuest::Exit::Kind;
  HostProbe probe;
  CUBE_ASSIGN(std::unique_ptr<MicroGuest> guest, MicroGuest::Create(kvm, false));

  guest->SetKernelCode(kPopcnt);
  CUBE_TRY(guest->StartKernel());
  CUBE_ASSIGN(MicroGuest::Exit exit, guest->Run());
  probe.runs_every_instruction = exit.kind == Kind::kDone;

  guest->SetKernelCode(kDone);
  guest->SetUserCode(kSyscall);
  const kvm_msr_entry msrs[] = {{kMsrStar, 0, MicroGuest::kStar},
                                {kMsrLstar, 0, MicroGuest::kKernelCode},
                                {kMsrSyscallMask, 0, kFlagInterrupt}};
  CUBE_TRY(guest->vcpu().SetMsrs(msrs));
  CUBE_TRY(guest->StartUser());
  CUBE_ASSIGN(exit, guest->Run());
  probe.syscall_enters_ring0 = exit.kind == Kind::kDone;

  guest->SetKernelCode(kLoop);
  CUBE_TRY(guest->StartKernel());
  double start = Nanoseconds();
  CUBE_ASSIGN(exit, guest->Run());
  if (exit.kind != Kind::kDone) return Errorf("KVM cannot run a loop in ring 0 (exit %u)", exit.reason);
  probe.ring0_nanoseconds = (Nanoseconds() - start) / (2.0 * kIterations);

  guest->SetUserCode(kUserLoop);
  CUBE_TRY(guest->StartUser());
  start = Nanoseconds();
  CUBE_ASSIGN(exit, guest->Run());
  if (exit.kind != Kind::kDoorbell) {
    return Errorf("KVM cannot run a loop in user mode (exit %u)", exit.reason);
  }
  probe.user_nanoseconds = (Nanoseconds() - start) / (2.0 * kUserIterations);
  return probe;
}

}  // namespace cube::vmm
