#include "vmm/vcpu.h"

#include <signal.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "vmm/assist/crash_dump.h"
#include "vmm/syscall_filter.h"

namespace cube::vmm {
namespace {

// A thread per VM needs little: the run loop and the assist layer, no recursion.
constexpr size_t kStackSize = 256 * 1024;

constexpr uint32_t kProfileIntervalUs = 1000;

// Exits on the way to where a vCPU's state can be taken.
constexpr int kPatience = 1000;

int KickSignal() { return SIGRTMIN; }

bool IsAccess(uint32_t reason) { return reason == KVM_EXIT_IO || reason == KVM_EXIT_MMIO; }

const char* ExitName(uint32_t reason) {
  switch (reason) {
    case KVM_EXIT_INTERNAL_ERROR: return "KVM internal error";
    case KVM_EXIT_FAIL_ENTRY: return "KVM could not enter the guest";
    case KVM_EXIT_DEBUG: return "unexpected debug exit";
    case KVM_EXIT_EXCEPTION: return "unexpected exception exit";
    case KVM_EXIT_HLT: return "halt without an interrupt controller";
    case KVM_EXIT_HYPERCALL: return "unexpected hypercall";
    default: return "exit that is not handled";
  }
}

}  // namespace

Vcpu::Vcpu(KvmVcpu kvm, Ring0 ring0, Environment environment)
    : kvm_(std::move(kvm)), ring0_(std::move(ring0)), environment_(std::move(environment)) {
  kvm_.SyncRegisters(ring0_.assist != nullptr || ring0_.engine != nullptr);
}

Vcpu::~Vcpu() {
  RequestStop();
  Join();
}

Status Vcpu::InstallKickSignal() {
  struct sigaction action = {};
  action.sa_handler = [](int) {};  // its only effect is EINTR
  if (sigaction(KickSignal(), &action, nullptr) < 0) return ErrnoError("sigaction");
  return OkStatus();
}

KvmVcpu Vcpu::Release() {
  released_ = true;
  ring0_ = {};
  kvm_.ClearExitRequest();
  return std::move(kvm_);
}

Status Vcpu::Adopt() {
  if (ring0_.engine != nullptr) ring0_.engine->Adopt();
  if (ring0_.assist != nullptr) return ring0_.assist->Adopt(&kvm_);
  return OkStatus();
}

Status Vcpu::Prepare() {
  prepared_.store(true, std::memory_order_relaxed);
  Status made = MakeThread();
  if (!made.ok()) prepared_.store(false, std::memory_order_relaxed);
  return made;
}

Status Vcpu::Start() {
  if (!running_) return MakeThread();
  if (prepared_.exchange(false)) go_.release();
  return OkStatus();
}

Status Vcpu::MakeThread() {
  stopping_.store(false, std::memory_order_seq_cst);
  kvm_.ClearExitRequest();
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackSize);
  int error = pthread_create(
      &thread_, &attributes,
      [](void* self) -> void* {
        auto* vcpu = static_cast<Vcpu*>(self);
        vcpu->Loop();
        // The other vCPUs' threads can end only if none waits for this one.
        if (vcpu->ring0_.engine != nullptr) vcpu->ring0_.engine->Leave();
        return nullptr;
      },
      this);
  pthread_attr_destroy(&attributes);
  if (error != 0) return Errorf("cannot start vCPU %u's thread: %s", kvm_.id(), strerror(error));
  running_ = true;
  return OkStatus();
}

void Vcpu::RequestStop() {
  if (released_) return;
  stopping_.store(true, std::memory_order_seq_cst);
  // The flag covers a thread about to enter the guest, the signal one that is in it.
  kvm_.RequestExit();
  if (ring0_.engine != nullptr) ring0_.engine->RequestPoll();
  if (prepared_.exchange(false)) go_.release();
  if (running_) pthread_kill(thread_, KickSignal());
}

void Vcpu::Join() {
  if (!running_) return;
  pthread_join(thread_, nullptr);
  running_ = false;
}

void Vcpu::Loop() {
  sigset_t kick;
  sigemptyset(&kick);
  sigaddset(&kick, KickSignal());
  pthread_sigmask(SIG_UNBLOCK, &kick, nullptr);
  if (profiler_ != nullptr) {
    Status profiling = profiler_->Start(KickSignal(), kProfileIntervalUs);
    if (!profiling.ok()) {
      environment_.stop({StopReason::Kind::kError, 0, profiling.error().message(), ""});
      return;
    }
  }
  Status filtered = SyscallFilter::ApplyToVcpu();
  if (!filtered.ok()) {
    environment_.stop({StopReason::Kind::kError, 0, filtered.error().message(), ""});
    return;
  }
  bool waits = prepared_.load(std::memory_order_relaxed);
  StopReason reason;
  if (!StartRing0(&reason)) {
    environment_.stop(std::move(reason));
    return;
  }
  if (waits) {
    go_.acquire();
    if (ring0_.engine != nullptr) ring0_.engine->SynchroniseClock(&kvm_);
  }
  while (!stopping_.load(std::memory_order_relaxed)) {
    bool run = true;
    if (!BeforeRun(&run, &reason)) {
      environment_.stop(std::move(reason));
      return;
    }
    if (!run) continue;
    Status ran = kvm_.Run();
    exits_.store(exits_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (!ran.ok()) {
      reason = {StopReason::Kind::kError, 0, ran.error().message(), ""};
    } else if (HandleExit(&reason)) {
      continue;
    }
    environment_.stop(std::move(reason));
    return;
  }
  Status settled = Settle();
  if (!settled.ok()) {
    environment_.stop({StopReason::Kind::kError, 0, settled.error().message(), ""});
  }
}

Status Vcpu::Settle() {
  // Instructions that left for user space are finished by the next KVM_RUN, which does nothing else
  // (KVM API 5, immediate_exit), or leaves for the next part of them: wide accesses to MMIO, repeated
  // ones to ports.
  StopReason reason;
  for (int i = 0;; ++i) {
    kvm_.RequestExit();
    CUBE_TRY(kvm_.Run());
    if (!IsAccess(kvm_.run()->exit_reason)) break;
    if (i == kPatience) return Errorf("vCPU %u does not come to the end of an access", kvm_.id());
    if (!HandleExit(&reason)) return Errorf("%s", reason.text.c_str());
  }
  if (ring0_.engine == nullptr) return OkStatus();
  // From anywhere in the stub it is a few exits; the bound is for a guest that has spoilt it.
  for (int i = 0; i < kPatience; ++i) {
    CUBE_ASSIGN(bool settled, ring0_.engine->Settled(&kvm_));
    if (settled) return ring0_.engine->Suspend(&kvm_);
    kvm_.ClearExitRequest();
    CUBE_TRY(kvm_.Run());
    if (!HandleExit(&reason)) return Errorf("%s", reason.text.c_str());
  }
  return Errorf("vCPU %u does not come to rest", kvm_.id());
}

bool Vcpu::StartRing0(StopReason* reason) {
  if (ring0_.engine == nullptr || std::exchange(ring0_started_, true)) return true;
  Status started =
      ring0_.engine->Start(&kvm_, environment_.physical_bits, environment_.several_vcpus);
  if (!started.ok()) *reason = {StopReason::Kind::kError, 0, started.error().message(), ""};
  return started.ok();
}

bool Vcpu::BeforeRun(bool* run, StopReason* reason) {
  if (ring0_.engine == nullptr) return true;
  auto outcome = ring0_.engine->BeforeRun(&kvm_);
  if (!outcome.ok()) {
    *reason = Unhandled();
    reason->text += ": " + outcome.error().message();
    return false;
  }
  *run = *outcome == ring0::Ring0Engine::Outcome::kRun;
  if (*outcome == ring0::Ring0Engine::Outcome::kTripleFault) {
    *reason = TripleFault();
    return false;
  }
  return true;
}

bool Vcpu::HandleExit(StopReason* reason) {
  if (ring0_.engine != nullptr) {
    using Outcome = ring0::Ring0Engine::Outcome;
    auto outcome = ring0_.engine->AfterRun(&kvm_);
    if (outcome.ok() && *outcome == Outcome::kRun) return true;
    if (outcome.ok() && *outcome == Outcome::kTripleFault) {
      *reason = TripleFault();
      return false;
    }
    if (!outcome.ok() || *outcome != Outcome::kNotMine) {
      *reason = Unhandled();
      if (!outcome.ok()) reason->text += ": " + outcome.error().message();
      return false;
    }
  }
  return HandleCommonExit(reason);
}

std::map<std::string, uint64_t> Vcpu::Ring0Counts() const {
  if (ring0_.engine != nullptr) return ring0_.engine->Counts();
  if (ring0_.assist != nullptr) return ring0_.assist->Counts();
  return {};
}

bool Vcpu::HandleCommonExit(StopReason* reason) {
  kvm_run* run = kvm_.run();
  switch (run->exit_reason) {
    case KVM_EXIT_INTR:
      if (profiler_ != nullptr) profiler_->Sample(&kvm_, *environment_.memory);
      return true;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return true;
    case KVM_EXIT_IO:
      return HandleIo();
    case KVM_EXIT_MMIO: {
      std::span<uint8_t> data(run->mmio.data, run->mmio.len);
      if (run->mmio.is_write != 0) {
        environment_.mmio->Write(run->mmio.phys_addr, data);
      } else {
        environment_.mmio->Read(run->mmio.phys_addr, data);
      }
      return true;
    }
    case KVM_EXIT_SHUTDOWN:
      *reason = TripleFault();
      return false;
    case KVM_EXIT_SYSTEM_EVENT:
      *reason = {StopReason::Kind::kReset, 0, "the guest asked for a reset", ""};
      return false;
    default:
      break;
  }
  if (ring0_.assist != nullptr) {
    auto outcome = ring0_.assist->HandleExit(&kvm_);
    if (outcome.ok() && *outcome == Ring0Assist::Outcome::kHandled) return true;
    if (outcome.ok() && *outcome == Ring0Assist::Outcome::kTripleFault) {
      *reason = TripleFault();
      return false;
    }
    *reason = Unhandled();
    if (!outcome.ok()) reason->text += ": " + outcome.error().message();
    return false;
  }
  *reason = Unhandled();
  return false;
}

bool Vcpu::HandleIo() {
  kvm_run* run = kvm_.run();
  uint8_t* data = reinterpret_cast<uint8_t*>(run) + run->io.data_offset;
  // A repeated string instruction comes as one exit with several items.
  for (uint32_t i = 0; i < run->io.count; ++i, data += run->io.size) {
    std::span<uint8_t> item(data, run->io.size);
    if (run->io.direction == KVM_EXIT_IO_OUT) {
      environment_.ports->Write(run->io.port, item);
    } else {
      environment_.ports->Read(run->io.port, item);
    }
  }
  return true;
}

StopReason Vcpu::TripleFault() {
  auto regs = kvm_.regs();
  return {StopReason::Kind::kTripleFault, 0,
          regs.ok() ? Format("the guest triple-faulted at rip %#llx", regs.value()->rip)
                    : "the guest triple-faulted",
          ""};
}

StopReason Vcpu::Unhandled() {
  kvm_run* run = kvm_.run();
  StopReason reason;
  reason.kind = StopReason::Kind::kError;
  reason.text = Format("%s (exit %u", ExitName(run->exit_reason), run->exit_reason);
  if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR) {
    reason.text += Format(", suberror %u", run->internal.suberror);
  } else if (run->exit_reason == KVM_EXIT_FAIL_ENTRY) {
    reason.text += Format(", hardware reason %#llx", run->fail_entry.hardware_entry_failure_reason);
  }
  auto regs = kvm_.regs();
  reason.text += regs.ok() ? Format(") on vCPU %u at rip %#llx", kvm_.id(), regs.value()->rip) : ")";
  reason.detail = CrashDump(&kvm_, *environment_.memory, environment_.system_map);
  return reason;
}

}  // namespace cube::vmm
