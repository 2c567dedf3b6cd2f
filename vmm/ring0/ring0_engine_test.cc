#include "vmm/ring0/ring0_engine.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <atomic>
#include <thread>
#include <utility>

#include "vmm/paging.h"
#include "vmm/pit_on_demand.h"
#include "vmm/ring0/engine_guest.h"
#include "vmm/ring0/guest_code.h"
#include "vmm/segments.h"

// What the engine puts around the interpreter, in a guest of a few instructions: time, interrupts,
// NMIs, several vCPUs.
namespace cube::vmm::ring0 {
namespace {

using Kind = MicroGuest::Exit::Kind;

constexpr uint64_t kData = MicroGuest::kKernelData;
constexpr uint8_t kInterruptVector = 24;  // one that has a gate

// After each write: what RDTSC says, what KVM says, what RDTSC says.
CUBE_GUEST_CODE(write_tsc, R"(
  mov $0x14000, %edi
  mov $0x10, %ecx          # TSC
  xor %eax, %eax
  mov $0x10000000, %edx
  wrmsr
  call 1f
  mov $0x3b, %ecx          # TSC_ADJUST
  rdmsr
  add $0x08000000, %edx
  wrmsr
  call 1f
  jmp 2f
1:
  rdtsc
  stosl
  mov %edx, %eax
  stosl
  mov $0x10, %ecx
  rdmsr
  stosl
  mov %edx, %eax
  stosl
  rdtsc
  stosl
  mov %edx, %eax
  stosl
  ret
2:
)")
// Changes an entry that user mode has used, and goes there.
CUBE_GUEST_CODE(replay, R"(
  sti
  mov 0x4120, %rax
  bts $9, %rax             # for software
  mov %rax, 0x4120
  push $0x2b
  push $0x2fff0
  push $0x202
  push $0x33
  push $0x20000
  iretq
)")
CUBE_GUEST_CODE(spin, "movl $1, 0x14000; 1: jmp 1b")
CUBE_GUEST_CODE(to_user, R"(
  push $0x2b
  push $0x2fff0
  push $0x202
  push $0x33
  push $0x20000
  iretq
)")
CUBE_GUEST_CODE(halt, "movl $1, 0x14000; sti; hlt")
CUBE_GUEST_CODE(halt_alone, "sti; movl $1, 0x14000; nop; hlt")
// Goes round with interrupts off until the handler below has been there 50 times. Its stack belongs
// to somebody else, as behind a SYSCALL.
CUBE_GUEST_CODE(count_nmis, R"(
  mov $0x18800, %esp
  movl $1, 0x14000
1:
  cmpl $50, 0x14004
  jne 1b
)")
CUBE_GUEST_CODE(nmi_handler, "incl 0x14004; iretq")
// Tells that it is there, and stays until it is let go.
CUBE_GUEST_CODE(waiting_handler, R"(
  incl 0x14004
1:
  cmpl $0, 0x14008
  je 1b
  iretq
)")
// Of user mode, likewise.
CUBE_GUEST_CODE(waiting_user, R"(
  movl $1, 0x24000
1:
  cmpl $0, 0x24004
  je 1b
  mov %rax, 0x1f0000       # the doorbell
)")
// Calls what the other changes, and tells how often it saw something older than was announced.
CUBE_GUEST_CODE(call_patched, R"(
  xor %edi, %edi
1:
  mov 0x14000, %esi        # announced
  xor %ecx, %ecx
  xor %eax, %eax
  cpuid                    # as a processor must, before it runs what another has changed
  call cube_call_patched_begin + 0x1000
  cmp %esi, %eax
  jae 2f
  inc %edi
2:
  mov %eax, 0x14040
  cmp $100, %esi
  jb 1b
  mov %edi, 0x14008
)")
// mov $imm, %eax; ret, whose immediate is aligned, for a store of one piece.
CUBE_GUEST_CODE(patched, "nop; nop; nop; mov $0, %eax; ret")
CUBE_GUEST_CODE(patch, R"(
  xor %ecx, %ecx
1:
  inc %ecx
  mov %ecx, 0x11004
  mov %ecx, 0x14000
3:
  pause
  cmp 0x14040, %ecx        # until it has been called
  ja 3b
  cmp $100, %ecx
  jb 1b
)")

// The gate of the interval timer's third counter, and a port of nobody's.
CUBE_GUEST_CODE(read_ports, R"(
  mov $0xe0, %al
  out %al, $0x43           # latch the status of counters
  in $0x40, %al
  mov %al, 0x14000
  in $0x61, %al
  mov %al, 0x14001
  in $0x70, %al
  mov %al, 0x14002
)")

// Of user mode: each access is to a page of its own, the last two to one of the kernel's choice.
CUBE_GUEST_CODE(touch_pages, R"(
  mov $5, %eax
  lock xadd %eax, 0x24000
  add 0x25000, %eax
  movups 0x26000, %xmm0
  movups %xmm0, 0x27000
  push %rax
  pop %rbx
  addl $3, 0x28ffe         # across a page
  mov 0x28ffe, %ecx
  add %ecx, %eax
  mov %rax, 0x1f0000       # the doorbell
)")

class Ring0EngineTest : public testing::Test {
 protected:
  void Create(const EngineGuest::Options& options) {
    auto kvm = Kvm::Open();
    ASSERT_TRUE(kvm.ok()) << kvm.error().message();
    auto guest = EngineGuest::Create(*kvm, options);
    ASSERT_TRUE(guest.ok()) << guest.error().message();
    guest_ = std::move(guest).value();
  }
  void Start(const GuestCode& code) {
    guest_->micro().SetKernelCode(code.bytes());
    ASSERT_TRUE(guest_->micro().StartKernel().ok());
    if (options_irqchip_) EnableLocalApic();
    ASSERT_TRUE(guest_->StartEngine().ok());
  }
  void CreateWithApic(uint32_t cpus = 1) {
    options_irqchip_ = true;
    Create({.irqchip = true, .cpus = cpus});
  }
  // By a message to the local APIC of vCPU 0, which any thread may send: a fixed interrupt or an
  // NMI (SDM volume 3, 11.11).
  void Send(bool nmi) {
    constexpr uint32_t kNmi = 4 << 8;
    kvm_msi msi = {};
    msi.address_lo = 0xfee00000;
    msi.data = nmi ? kNmi : kInterruptVector;
    EXPECT_EQ(ioctl(guest_->micro().vm().fd(), KVM_SIGNAL_MSI, &msi), 1) << strerror(errno);
  }
  // An interrupt gate of the guest's IDT.
  void SetGate(uint8_t vector, uint64_t handler, uint8_t stack) {
    guest_->micro().Poke<uint64_t>(
        0x6000 + vector * 16, (handler & 0xffff) | uint64_t{MicroGuest::kKernelCodeSelector} << 16 |
                                  uint64_t{stack} << 32 | 0x8eull << 40 |
                                  (handler >> 16 & 0xffff) << 48);
  }
  MicroGuest::Exit Run(uint32_t id = 0, const std::function<void()>& before_run = {},
                       const std::function<void()>& on_stop = {}) {
    auto exit = guest_->Run(id, before_run, on_stop);
    EXPECT_TRUE(exit.ok()) << exit.error().message();
    return exit.ok() ? *exit : MicroGuest::Exit{};
  }
  static void ExpectKind(const MicroGuest::Exit& exit, Kind kind, uint8_t vector = 0) {
    EXPECT_EQ(static_cast<int>(exit.kind), static_cast<int>(kind)) << "reason " << exit.reason;
    EXPECT_EQ(int{exit.vector}, int{vector});
  }
  template <typename T>
  T Peek(uint64_t address) {
    return guest_->micro().Peek<T>(address);
  }
  // As another thread changes it.
  uint32_t Watch(uint64_t address) {
    auto bytes = guest_->micro().memory().Slice(address, 4);
    return __atomic_load_n(reinterpret_cast<const uint32_t*>(bytes->data()), __ATOMIC_ACQUIRE);
  }
  // Word of the frame that an exception's stub has found.
  uint64_t Frame(size_t index) {
    return Peek<uint64_t>(guest_->vcpu(0).regs().value()->rsp + 8 * index);
  }

  std::unique_ptr<EngineGuest> guest_;

 private:
  void EnableLocalApic() {
    constexpr size_t kSpuriousVector = 0xf0;
    auto apic = guest_->vcpu(0).GetLapic();
    ASSERT_TRUE(apic.ok());
    const uint32_t enabled = 0x1ff;
    memcpy(apic->regs + kSpuriousVector, &enabled, sizeof enabled);
    ASSERT_TRUE(guest_->vcpu(0).SetLapic(*apic).ok());
  }

  bool options_irqchip_ = false;
};

// A KVM that runs user mode without a TSC of its own may ignore the write: then so does the engine.
TEST_F(Ring0EngineTest, TimeIsWhatKvmMakesOfTheGuestsWrites) {
  Create({});
  Start(write_tsc());
  ExpectKind(Run(), Kind::kDone);
  for (uint64_t at : {kData, kData + 24}) {
    uint64_t before = Peek<uint64_t>(at), kvm = Peek<uint64_t>(at + 8);
    uint64_t after = Peek<uint64_t>(at + 16);
    EXPECT_LE(before, kvm);
    EXPECT_LE(kvm, after);
  }
}

class ReplayTest : public Ring0EngineTest, public testing::WithParamInterface<uint32_t> {};

TEST_F(Ring0EngineTest, ThePitIsMadeWhenTheGuestComesToItsPorts) {
  CreateWithApic();
  const KvmVm& vm = guest_->micro().vm();
  kvm_pit_state2 state = {};
  state.channels[0].mode = 4;
  state.channels[0].count = 0x1234;
  PitOnDemand pit;
  pit.Defer(state);
  std::vector<uint16_t> ports;
  guest_->shared().foreign_port = [&](uint16_t port) {
    ports.push_back(port);
    return pit.OnPort(vm, port);
  };
  EXPECT_FALSE(vm.GetPit().ok());
  Start(read_ports());
  // The port that nobody claims leaves for user space.
  EXPECT_EQ(Run().kind, Kind::kKvm);
  ASSERT_GE(ports.size(), 4u);
  EXPECT_EQ((std::vector<uint16_t>(ports.begin(), ports.begin() + 4)),
            (std::vector<uint16_t>{0x43, 0x40, 0x61, 0x70}));
  EXPECT_FALSE(pit.deferred().has_value());
  auto made = vm.GetPit();
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->channels[0].mode, 4);
  EXPECT_EQ(made->channels[0].count, 0x1234u);
}

// Whether KVM is given a page before it comes to it makes no difference that the guest could see.
class PiecesTest : public Ring0EngineTest, public testing::WithParamInterface<bool> {};

TEST_P(PiecesTest, KvmIsGivenTheRamThatItComesTo) {
  Create({.piece = kPageSize, .foreseen = GetParam()});
  MicroGuest& micro = guest_->micro();
  micro.SetUserCode(touch_pages().bytes());
  micro.Poke<uint32_t>(MicroGuest::kUserData, 10);
  micro.Poke<uint32_t>(MicroGuest::kUserData + 0x1000, 100);
  micro.Poke<uint64_t>(MicroGuest::kUserData + 0x2000, 0x1122334455667788);
  micro.Poke<uint32_t>(0x28ffe, 1000);
  Start(to_user());
  MicroGuest::Exit exit = Run();
  ExpectKind(exit, Kind::kDoorbell);
  EXPECT_EQ(exit.value, 10u + 100u + 1003u);
  EXPECT_EQ(Peek<uint32_t>(MicroGuest::kUserData), 15u);
  EXPECT_EQ(Peek<uint64_t>(MicroGuest::kUserData + 0x3000), 0x1122334455667788u);
  EXPECT_EQ(Peek<uint32_t>(0x28ffe), 1003u);
  uint64_t late = guest_->engine().Counts()["ring0 late memory slots"];
  if (GetParam()) {
    EXPECT_EQ(late, 0u);
    EXPECT_FALSE(guest_->slots().complete());
    EXPECT_TRUE(guest_->slots().IsMissing(0x12000));  // of ring 0, which KVM does not run
  } else {
    EXPECT_GT(late, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Foreseen, PiecesTest, testing::Bool());

TEST_P(ReplayTest, NoInterruptShowsTheStub) {
  for (bool nmi : {false, true}) {
    CreateWithApic(GetParam());
    const uint8_t kLoop[] = {0xeb, 0xfe};
    guest_->micro().SetUserCode(kLoop);
    constexpr uint64_t kEntry = 0x4120;
    guest_->micro().Poke<uint64_t>(kEntry, Peek<uint64_t>(kEntry) | kEntryAccessed);
    Start(replay());
    bool sent = false;
    MicroGuest::Exit exit = Run(0, [&] {
      if (sent || guest_->engine().Counts()["ring0 replays"] == 0) return;
      sent = true;
      Send(nmi);
    });
    ExpectKind(exit, Kind::kException, nmi ? kVectorNmi : kInterruptVector);
    EXPECT_TRUE(sent);
    // Before or behind the return to user mode.
    uint64_t rip = Frame(0);
    bool in_user_mode = Frame(1) == (MicroGuest::kUserCodeSelector | 3u);
    uint64_t code = in_user_mode ? MicroGuest::kUserCode : MicroGuest::kKernelCode;
    EXPECT_GE(rip, code);
    EXPECT_LT(rip, code + 0x100);
  }
}

INSTANTIATE_TEST_SUITE_P(Vcpus, ReplayTest, testing::Values(1, 2));

// All that is known of a guest's tables and code is lost if KVM seems to have run more than the HLT.
TEST_F(Ring0EngineTest, AHaltThatAnInterruptEndsIsNoMoreThanThat) {
  for (const GuestCode& code : {halt(), halt_alone()}) {
    CreateWithApic();
    Start(code);
    std::thread sender([this] {
      while (Watch(kData) == 0) sched_yield();
      Send(false);
    });
    ExpectKind(Run(), Kind::kException, kInterruptVector);
    sender.join();
    EXPECT_EQ(guest_->engine().Counts()["ring0 resynchronisations"], 0u);
  }
}

TEST_F(Ring0EngineTest, NmiReachesRing0WithInterruptsOff) {
  CreateWithApic();
  Start(spin());
  std::thread sender([this] {
    while (Watch(kData) == 0) sched_yield();
    Send(true);
  });
  ExpectKind(Run(), Kind::kException, kVectorNmi);
  sender.join();
  EXPECT_EQ(Frame(1), MicroGuest::kKernelCodeSelector);
  EXPECT_EQ(Frame(2) & kFlagInterrupt, 0u);
}

TEST_F(Ring0EngineTest, NmiReachesUserMode) {
  CreateWithApic();
  // movl $1, 0x24000; jmp .
  const uint8_t kLoop[] = {0xc7, 0x04, 0x25, 0x00, 0x40, 0x02, 0x00, 1, 0, 0, 0, 0xeb, 0xfe};
  guest_->micro().SetUserCode(kLoop);
  Start(to_user());
  std::thread sender([this] {
    while (Watch(MicroGuest::kUserData) == 0) sched_yield();
    Send(true);
  });
  ExpectKind(Run(), Kind::kException, kVectorNmi);
  sender.join();
  EXPECT_EQ(Frame(1), MicroGuest::kUserCodeSelector | 3u);
}

// Each ends with its IRET, and has the stack that the guest's gate names.
TEST_F(Ring0EngineTest, NmisComeOneAfterTheOther) {
  CreateWithApic();
  constexpr uint64_t kHandler = MicroGuest::kKernelCode + 0x800;
  MicroGuest& micro = guest_->micro();
  micro.memory().Write(kHandler, nmi_handler().bytes());
  SetGate(kVectorNmi, kHandler, 1);
  constexpr uint64_t kStack = 0x18000, kPattern = 0x5a5a5a5a5a5a5a5a;
  for (uint64_t at = kStack; at < kStack + 0x1000; at += 8) micro.Poke<uint64_t>(at, kPattern);
  Start(count_nmis());
  std::thread sender([this] {
    while (Watch(kData) == 0) sched_yield();
    for (uint32_t seen = 0; seen < 50; ++seen) {
      Send(true);
      while (Watch(kData + 4) == seen) sched_yield();
    }
  });
  ExpectKind(Run(), Kind::kDone);
  sender.join();
  EXPECT_EQ(Peek<uint32_t>(kData + 4), 50u);
  for (uint64_t at = kStack; at < kStack + 0x1000; at += 8) {
    ASSERT_EQ(Peek<uint64_t>(at), kPattern) << std::hex << at;
  }
}

// Suspends in the handler of an interrupt, where KVM has `vector` as one that it has to deliver.
class InterruptSuspendTest : public Ring0EngineTest {
 protected:
  MicroGuest::Exit SuspendInHandler(uint8_t vector, bool in_service) {
    CreateWithApic();
    constexpr uint64_t kHandler = MicroGuest::kKernelCode + 0x800;
    guest_->micro().memory().Write(kHandler, waiting_handler().bytes());
    SetGate(kInterruptVector, kHandler, 0);
    guest_->micro().SetUserCode(waiting_user().bytes());
    Start(to_user());
    // It comes as user mode is entered, and the engine stops in its handler.
    bool sent = false;
    auto before_run = [&] {
      if (!std::exchange(sent, true)) Send(false);
      guest_->engine().RequestPoll();
    };
    MicroGuest::Exit exit = Run(0, before_run, [&] {
      // Vectors below 32 count as faults.
      if (suspended_ || guest_->engine().Counts()["ring0 faults"] == 0) return;
      suspended_ = true;
      KvmVcpu& vcpu = guest_->vcpu(0);
      SetInService(vector, in_service);
      auto events = vcpu.GetEvents();
      ASSERT_TRUE(events.ok());
      events->interrupt.injected = 1;
      events->interrupt.nr = vector;
      ASSERT_TRUE(vcpu.SetEvents(*events).ok());
      ASSERT_TRUE(guest_->engine().Suspend(&vcpu).ok());
      events = vcpu.GetEvents();
      ASSERT_TRUE(events.ok());
      kept_ = events->interrupt.injected != 0;
      guest_->micro().Poke<uint32_t>(kData + 8, 1);
      guest_->micro().Poke<uint32_t>(MicroGuest::kUserData + 4, 1);
    });
    EXPECT_TRUE(suspended_);
    return exit;
  }
  void SetInService(uint8_t vector, bool in_service) {
    auto apic = guest_->vcpu(0).GetLapic();
    ASSERT_TRUE(apic.ok());
    char* byte = apic->regs + 0x100 + vector / 32 * 16 + vector % 32 / 8;
    const char bit = static_cast<char>(1 << vector % 8);
    *byte = static_cast<char>(in_service ? *byte | bit : *byte & ~bit);
    ASSERT_TRUE(guest_->vcpu(0).SetLapic(*apic).ok());
  }

  bool suspended_ = false, kept_ = false;
};

TEST_F(InterruptSuspendTest, WhatTheGuestHasHadIsNotDeliveredAgain) {
  for (bool in_service : {true, false}) {
    SCOPED_TRACE(in_service);
    suspended_ = false;
    ExpectKind(SuspendInHandler(kInterruptVector, in_service), Kind::kDoorbell);
    EXPECT_FALSE(kept_);
    EXPECT_EQ(Peek<uint32_t>(kData + 4), 1u);
  }
}

TEST_F(InterruptSuspendTest, WhatTheGuestHasYetToGetIsDelivered) {
  ExpectKind(SuspendInHandler(kInterruptVector + 1, true), Kind::kException, kInterruptVector + 1);
  EXPECT_TRUE(kept_);
  EXPECT_EQ(Peek<uint32_t>(kData + 4), 1u);
}

TEST_F(InterruptSuspendTest, WhatTheGuestHasEndedIsNotDelivered) {
  ExpectKind(SuspendInHandler(kInterruptVector + 1, false), Kind::kDoorbell);
  EXPECT_FALSE(kept_);
}

TEST_F(Ring0EngineTest, CodeThatAnotherVcpuChangesIsSeen) {
  Create({.cpus = 2});
  constexpr uint64_t kPatched = 0x11000, kPatcher = 0x12000, kStack = 0x18000;
  guest_->micro().memory().Write(kPatched, patched().bytes());
  guest_->micro().memory().Write(kPatcher, patch().bytes());
  Start(call_patched());
  std::thread patcher([&] {
    EXPECT_TRUE(guest_->StartOther(1, kPatcher, kStack).ok());
    ExpectKind(Run(1), Kind::kDone);
    guest_->engine(1).Leave();
  });
  ExpectKind(Run(0), Kind::kDone);
  guest_->engine(0).Leave();
  patcher.join();
  EXPECT_EQ(Peek<uint32_t>(kData + 8), 0u) << "calls of code older than announced";
  EXPECT_EQ(Peek<uint32_t>(kData + 0x40), 100u);
}

}  // namespace
}  // namespace cube::vmm::ring0
