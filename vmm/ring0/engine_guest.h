#ifndef CUBE_VMM_RING0_ENGINE_GUEST_H_
#define CUBE_VMM_RING0_ENGINE_GUEST_H_

#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "vmm/assist/micro_guest.h"
#include "vmm/bus.h"
#include "vmm/ring0/ring0_engine.h"
#include "vmm/ring0/ring0_shared.h"

namespace cube::vmm::ring0 {

// A micro guest whose ring 0 the engine runs, for tests. Its vCPUs may run in a thread each.
class EngineGuest {
 public:
  struct Options {
    bool irqchip = false;
    uint32_t cpus = 1;
    // If not 0, KVM is given the memory in pieces of this many bytes as it needs them; what user
    // mode can reach ahead of that if `foreseen`, else once KVM has come to it.
    uint64_t piece = 0;
    bool foreseen = true;
  };
  static Result<std::unique_ptr<EngineGuest>> Create(const Kvm& kvm, const Options& options);

  // Its memory, code and vCPU 0. The latter must be started by it before StartEngine().
  MicroGuest& micro() { return *micro_; }
  KvmVcpu& vcpu(uint32_t id) { return id == 0 ? micro_->vcpu() : more_[id - 1]; }

  // The vCPU, with its registers set, becomes the engine's. Others than 0 begin as 0 did, at `rip`
  // with the stack `rsp`. On the thread that runs it.
  Status StartEngine();
  Status StartOther(uint32_t id, uint64_t rip, uint64_t rsp);
  // Runs until an exit that has a meaning, or nobody's. `before_run` is called before each KVM_RUN,
  // `on_stop` when the engine has been asked to stop.
  Result<MicroGuest::Exit> Run(uint32_t id = 0, const std::function<void()>& before_run = {},
                               const std::function<void()>& on_stop = {});

  Ring0Shared& shared() { return *shared_; }
  RamSlots& slots() { return *slots_; }
  Ring0Engine& engine(uint32_t id = 0) { return *engines_[id]; }

 private:
  EngineGuest() = default;
  Status Start(uint32_t id);

  std::unique_ptr<MicroGuest> micro_;
  std::vector<KvmVcpu> more_;
  Bus ports_, mmio_;
  std::unique_ptr<RamSlots> slots_;
  std::unique_ptr<Ring0Shared> shared_;
  std::vector<std::unique_ptr<Ring0Engine>> engines_;
  uint8_t physical_bits_ = 0;
  kvm_sregs sregs_ = {};  // of vCPU 0 when it started
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_ENGINE_GUEST_H_
