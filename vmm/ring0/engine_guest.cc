#include "vmm/ring0/engine_guest.h"

#include "vmm/cpuid.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

constexpr uint32_t kStubSlot = 1;
constexpr uint32_t kFirstRamSlot = 100;
// Exits on the way; a guest that makes more goes round in circles.
constexpr int kMaxExits = 1'000'000;

}  // namespace

Result<std::unique_ptr<EngineGuest>> EngineGuest::Create(const Kvm& kvm, const Options& options) {
  std::unique_ptr<EngineGuest> guest(new EngineGuest);
  CUBE_ASSIGN(guest->micro_, MicroGuest::Create(kvm, false, options.irqchip));
  MicroGuest& micro = *guest->micro_;
  guest->physical_bits_ = PhysicalAddressBits(micro.cpuid());
  CUBE_ASSIGN(guest->shared_, Ring0Shared::Create(micro.vm(), micro.memory(), &guest->ports_,
                                                  &guest->mmio_, kStubSlot, std::nullopt));
  if (options.piece != 0) {
    CUBE_TRY(micro.vm().SetMemorySlot(0, 0, {}));
    guest->slots_ =
        std::make_unique<RamSlots>(micro.vm(), micro.memory(), kFirstRamSlot, options.piece);
    guest->shared_->slots = guest->slots_.get();
    if (options.foreseen) guest->shared_->tables.SetSlots(guest->slots_.get());
  }
  for (uint32_t id = 0; id < options.cpus; ++id) {
    if (id > 0) {
      CUBE_ASSIGN(KvmVcpu vcpu, micro.vm().CreateVcpu(id));
      CUBE_TRY(vcpu.SetCpuid(micro.cpuid()));
      vcpu.SyncRegisters(true);
      guest->more_.push_back(std::move(vcpu));
    }
    guest->engines_.push_back(std::make_unique<Ring0Engine>(guest->shared_.get(), id,
                                                            XsaveLayout::FromCpuid(micro.cpuid())));
  }
  return guest;
}

Status EngineGuest::StartEngine() {
  CUBE_ASSIGN(const kvm_sregs* sregs, micro_->vcpu().sregs());
  sregs_ = *sregs;
  return Start(0);
}

Status EngineGuest::StartOther(uint32_t id, uint64_t rip, uint64_t rsp) {
  CUBE_ASSIGN(kvm_sregs * sregs, vcpu(id).mutable_sregs());
  uint64_t apic_base = sregs->apic_base;
  *sregs = sregs_;
  sregs->apic_base = apic_base;
  CUBE_ASSIGN(kvm_regs * regs, vcpu(id).mutable_regs());
  *regs = {};
  regs->rip = rip;
  regs->rsp = rsp;
  regs->rflags = kFlagReserved;
  CUBE_TRY(vcpu(id).FlushRegistersNow());
  return Start(id);
}

Status EngineGuest::Start(uint32_t id) {
  return engines_[id]->Start(&vcpu(id), physical_bits_, engines_.size() > 1);
}

Result<MicroGuest::Exit> EngineGuest::Run(uint32_t id, const std::function<void()>& before_run,
                                          const std::function<void()>& on_stop) {
  using Outcome = Ring0Engine::Outcome;
  MicroGuest::Exit exit;
  for (int i = 0; i < kMaxExits; ++i) {
    CUBE_ASSIGN(Outcome before, engine(id).BeforeRun(&vcpu(id)));
    if (before == Outcome::kStopped) {
      if (on_stop) on_stop();
      continue;
    }
    if (before == Outcome::kRun) {
      if (before_run) before_run();
      CUBE_TRY(vcpu(id).Run());
      CUBE_ASSIGN(Outcome after, engine(id).AfterRun(&vcpu(id)));
      if (after == Outcome::kRun) continue;
      exit.reason =
          after == Outcome::kTripleFault ? KVM_EXIT_SHUTDOWN : vcpu(id).run()->exit_reason;
      if (after == Outcome::kNotMine) {
        if (exit.reason == KVM_EXIT_INTR) continue;
        if (auto meaning = MicroGuest::MeaningOf(*vcpu(id).run())) return *meaning;
      }
      return exit;
    }
    exit.reason = KVM_EXIT_SHUTDOWN;
    return exit;
  }
  return Errorf("vCPU %u made %d exits and was not done", id, kMaxExits);
}

}  // namespace cube::vmm::ring0
