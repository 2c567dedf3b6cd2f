#ifndef CUBE_VMM_VCPU_H_
#define CUBE_VMM_VCPU_H_

#include <pthread.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "vmm/assist/ring0_assist.h"
#include "vmm/bus.h"
#include "vmm/guest_memory.h"
#include "vmm/guest_profiler.h"
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/stop_reason.h"

namespace cube::vmm {

// One vCPU's thread: runs the guest and answers its exits until it is told to stop.
class Vcpu {
 public:
  struct Environment {
    const Bus* ports;
    const Bus* mmio;
    const GuestMemory* memory;
    // Path of a System.map for dumps; may be empty.
    std::string system_map;
    // Called once, on the vCPU's thread, when the guest cannot or will not go on.
    std::function<void(StopReason)> stop;
  };

  // `assist` is null on a host that runs ring 0 natively.
  Vcpu(KvmVcpu kvm, std::unique_ptr<Ring0Assist> assist, Environment environment);
  // Stops and joins the thread.
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  // Installs the signal that takes vCPU threads out of the guest. Once per process.
  static Status InstallKickSignal();

  // Starts the thread. Before this, and after Join(), kvm() belongs to the caller.
  Status Start();
  // Any thread.
  void RequestStop();
  void Join();

  KvmVcpu& kvm() { return kvm_; }
  // Samples the guest while it runs, until Join(). Before Start().
  void Profile(GuestProfiler* profiler) { profiler_ = profiler; }
  const Ring0Assist* assist() const { return assist_.get(); }
  // Exits to user space so far; exact once joined.
  uint64_t exits() const { return exits_.load(std::memory_order_relaxed); }

 private:
  void Loop();
  // What one exit means: nothing to stop for, or the reason.
  bool HandleExit(StopReason* reason);
  bool HandleIo();
  StopReason TripleFault();
  StopReason Unhandled();

  KvmVcpu kvm_;
  std::unique_ptr<Ring0Assist> assist_;
  Environment environment_;
  GuestProfiler* profiler_ = nullptr;
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> exits_{0};
  pthread_t thread_ = {};
  bool running_ = false;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_VCPU_H_
