#ifndef CUBE_VMM_VCPU_H_
#define CUBE_VMM_VCPU_H_

#include <pthread.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <semaphore>
#include <string>

#include "base/result.h"
#include "vmm/assist/ring0_assist.h"
#include "vmm/bus.h"
#include "vmm/guest_memory.h"
#include "vmm/guest_profiler.h"
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/ring0/ring0_engine.h"
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
    // For the ring-0 engine: the width of physical addresses, and whether other vCPUs exist.
    uint8_t physical_bits = 46;
    bool several_vcpus = false;
  };

  // What stands in for a KVM that only emulates ring 0: one of the two, or, on a host that runs it
  // natively, none.
  struct Ring0 {
    std::unique_ptr<Ring0Assist> assist;
    std::unique_ptr<ring0::Ring0Engine> engine;
  };

  Vcpu(KvmVcpu kvm, Ring0 ring0, Environment environment);
  // Stops and joins the thread.
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  // Installs the signal that takes vCPU threads out of the guest. Once per process.
  static Status InstallKickSignal();

  // Once, before Start(), if KVM's vCPU was restored rather than made.
  Status Adopt();
  // Makes the thread, which gets all ready and then waits, kvm() still belonging to the caller once
  // this has returned; for Start() to be quick, or to be ended by RequestStop() and Join().
  Status Prepare();
  // Lets the thread run; makes it if there is none, for the first time or after Join(). While there
  // is none, kvm() belongs to the caller.
  Status Start();
  // Any thread.
  void RequestStop();
  // Waits for the thread to end. KVM then has the whole state of the vCPU, as the guest left it,
  // unless the reason of the end was an error.
  void Join();

  KvmVcpu& kvm() { return kvm_; }
  // Gives KVM's vCPU up, which then has nothing pending; this is of no use after. Not while it
  // runs.
  KvmVcpu Release();
  // In the child of a fork: KVM's vCPU, which is the parent's, is not touched by this any more.
  void Abandon() { released_ = true; }
  // Samples the guest while it runs, until Join(). Before Start().
  void Profile(GuestProfiler* profiler) { profiler_ = profiler; }
  // What the assist layer or the engine did, by name; once joined.
  std::map<std::string, uint64_t> Ring0Counts() const;
  // Exits to user space so far; exact once joined.
  uint64_t exits() const { return exits_.load(std::memory_order_relaxed); }

 private:
  void Loop();
  Status MakeThread();
  // What one exit means: nothing to stop for, or the reason.
  bool HandleExit(StopReason* reason);
  bool HandleCommonExit(StopReason* reason);
  // False: `reason` says why not.
  bool StartRing0(StopReason* reason);
  // Runs on until the state of the vCPU can be taken.
  Status Settle();
  bool BeforeRun(bool* run, StopReason* reason);
  bool HandleIo();
  StopReason TripleFault();
  StopReason Unhandled();

  KvmVcpu kvm_;
  Ring0 ring0_;
  Environment environment_;
  GuestProfiler* profiler_ = nullptr;
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> exits_{0};
  pthread_t thread_ = {};
  bool running_ = false;               // there is a thread
  std::atomic<bool> prepared_{false};  // it waits for go_, which who takes this back is to give
  std::binary_semaphore go_{0};
  bool ring0_started_ = false;
  bool released_ = false;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_VCPU_H_
