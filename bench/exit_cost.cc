// What KVM's ways into and out of a guest cost on this host, in microseconds: the floor under every
// system call and page fault of the ring-0 engine. Prints a table.

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

#include "vmm/assist/micro_guest.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

constexpr int kRepetitions = 3000;
constexpr uint64_t kPageFaultPort = MicroGuest::kExceptionPort + kVectorPageFault;

double Microseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

// `prepare` is not timed.
Status Measure(const char* name, const std::function<Status()>& prepare,
               const std::function<Status()>& step) {
  std::vector<double> samples;
  for (int i = 0; i < kRepetitions; ++i) {
    if (prepare) CUBE_TRY(prepare());
    double start = Microseconds();
    CUBE_TRY(step());
    samples.push_back(Microseconds() - start);
  }
  std::sort(samples.begin(), samples.end());
  printf("%-60s %8.1f %8.1f\n", name, samples[samples.size() / 2], samples[0]);
  return OkStatus();
}

// The breakpoints that the engine sets; none with `handler` 0.
Status SetBreakpoint(KvmVcpu* vcpu, uint64_t handler) {
  kvm_guest_debug debug = {};
  if (handler != 0) {
    debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    debug.arch.debugreg[0] = handler;
    debug.arch.debugreg[7] = 0x400 | 2;
  }
  return vcpu->SetGuestDebug(debug);
}

struct Crossing {
  const char* name;
  bool system_call;   // or a load of an unmapped page
  bool by_sysret;     // or with user mode's segments set from outside
  bool breakpoint;    // or an OUT as the handler's first instruction
  bool without_idt;   // so that the fault shuts the processor down
  uint32_t exit;
};

constexpr Crossing kCrossings[] = {
    {"SYSRET, SYSCALL, breakpoint at #PF", true, true, true, false, KVM_EXIT_DEBUG},
    {"SYSRET, SYSCALL, OUT at #PF", true, true, false, false, KVM_EXIT_IO},
    {"user mode set, SYSCALL, breakpoint at #PF", true, false, true, false, KVM_EXIT_DEBUG},
    {"user mode set, SYSCALL, OUT at #PF", true, false, false, false, KVM_EXIT_IO},
    {"user mode set, SYSCALL, shutdown for want of an IDT", true, false, false, true,
     KVM_EXIT_SHUTDOWN},
    {"user mode set, fault, breakpoint at #PF", false, false, true, false, KVM_EXIT_DEBUG},
    {"user mode set, fault, OUT at #PF", false, false, false, false, KVM_EXIT_IO},
    {"user mode set, fault, shutdown for want of an IDT", false, false, false, true,
     KVM_EXIT_SHUTDOWN},
};

// syscall
constexpr uint8_t kSyscall[] = {0x0f, 0x05};
// mov kUnmappedPage, %eax
constexpr uint8_t kLoad[] = {0x8b, 0x04, 0x25, 0x00, 0xc0, 0x03, 0x00};
static_assert(MicroGuest::kUnmappedPage == 0x3c000);
// sysretq
constexpr uint8_t kSysret[] = {0x48, 0x0f, 0x07};
// out %al, $0xf4
constexpr uint8_t kOut[] = {0xe6, MicroGuest::kDonePort};

// The stub of #PF, whose NOP the OUT replaces.
Result<uint64_t> FindPageFaultStub(MicroGuest* guest) {
  guest->SetUserCode(kLoad);
  CUBE_TRY(guest->StartUser());
  CUBE_ASSIGN(MicroGuest::Exit exit, guest->Run());
  if (exit.kind != MicroGuest::Exit::Kind::kException || exit.vector != kVectorPageFault) {
    return Errorf("a load of an unmapped page did not fault");
  }
  CUBE_ASSIGN(const kvm_regs* regs, guest->vcpu().regs());
  // After nop and out %al, $port.
  return regs->rip - 3;
}

Status MeasureCrossing(MicroGuest* guest, uint64_t stub, const Crossing& crossing) {
  KvmVcpu& vcpu = guest->vcpu();
  guest->SetKernelCode(kSysret);
  if (crossing.system_call) {
    guest->SetUserCode(kSyscall);
  } else {
    guest->SetUserCode(kLoad);
  }
  const uint8_t with_nop[] = {0x90, 0xe6, kPageFaultPort}, without[] = {0xe6, kPageFaultPort, 0xf4};
  guest->memory().Write(stub, crossing.breakpoint ? with_nop : without);
  CUBE_TRY(SetBreakpoint(&vcpu, crossing.breakpoint ? stub : 0));
  auto prepare = [&]() -> Status {
    CUBE_TRY(crossing.by_sysret ? guest->StartKernel() : guest->StartUser());
    CUBE_ASSIGN(kvm_regs * regs, vcpu.mutable_regs());
    regs->rcx = MicroGuest::kUserCode;
    regs->r11 = kFlagReserved;
    CUBE_ASSIGN(kvm_sregs * sregs, vcpu.mutable_sregs());
    if (crossing.without_idt) sregs->idt.limit = 0;
    return OkStatus();
  };
  CUBE_TRY(Measure(crossing.name, prepare, [&vcpu] { return vcpu.Run(); }));
  if (vcpu.run()->exit_reason != crossing.exit) {
    return Errorf("%s: exit %u instead of %u", crossing.name, vcpu.run()->exit_reason,
                  crossing.exit);
  }
  return SetBreakpoint(&vcpu, 0);
}

Status MeasureCalls(MicroGuest* guest) {
  KvmVcpu& vcpu = guest->vcpu();
  guest->SetKernelCode(kOut);
  CUBE_TRY(Measure("ring 0: one OUT", [&] { return guest->StartKernel(); },
                   [&] { return vcpu.Run(); }));
  kvm_guest_debug step = {};
  step.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  CUBE_TRY(vcpu.SetGuestDebug(step));
  const uint8_t nops[] = {0x90, 0x90, 0x90};
  guest->SetKernelCode(nops);
  CUBE_TRY(Measure("ring 0: one instruction by single step", [&] { return guest->StartKernel(); },
                   [&] { return vcpu.Run(); }));
  CUBE_TRY(Measure("KVM_SET_GUEST_DEBUG", nullptr, [&] { return vcpu.SetGuestDebug(step); }));
  CUBE_TRY(SetBreakpoint(&vcpu, 0));
  const kvm_msr_entry entry = {kMsrKernelGsBase, 0, 0};
  CUBE_TRY(Measure("KVM_SET_MSRS", nullptr, [&] { return vcpu.SetMsrs({&entry, 1}); }));
  std::vector<uint8_t> area(vcpu.xsave_size());
  CUBE_TRY(Measure("KVM_GET_XSAVE", nullptr, [&] { return vcpu.GetXsave(area); }));
  CUBE_TRY(Measure("KVM_SET_XSAVE", nullptr, [&] { return vcpu.SetXsave(area); }));
  CUBE_TRY(Measure("KVM_GET_XCRS", nullptr, [&]() -> Status {
    CUBE_TRY(vcpu.GetXcrs());
    return OkStatus();
  }));
  vcpu.RequestExit();
  return Measure("KVM_RUN that is told to leave at once", nullptr, [&] { return vcpu.Run(); });
}

Status Main() {
  CUBE_ASSIGN(Kvm kvm, Kvm::Open("/dev/kvm"));
  CUBE_ASSIGN(std::unique_ptr<MicroGuest> guest, MicroGuest::Create(kvm, false));
  CUBE_ASSIGN(uint64_t stub, FindPageFaultStub(guest.get()));
  const kvm_msr_entry msrs[] = {{kMsrStar, 0, MicroGuest::kStar},
                                {kMsrLstar, 0, MicroGuest::kKernelCode},
                                {kMsrSyscallMask, 0, kFlagInterrupt}};
  CUBE_TRY(guest->vcpu().SetMsrs(msrs));
  printf("%-60s %8s %8s\n", "microseconds", "median", "least");
  for (const Crossing& crossing : kCrossings) CUBE_TRY(MeasureCrossing(guest.get(), stub, crossing));
  return MeasureCalls(guest.get());
}

}  // namespace
}  // namespace cube::vmm

int main() {
  cube::Status status = cube::vmm::Main();
  if (status.ok()) return 0;
  fprintf(stderr, "exit_cost: %s\n", status.error().message().c_str());
  return 1;
}
