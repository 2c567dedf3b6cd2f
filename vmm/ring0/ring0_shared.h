#ifndef CUBE_VMM_RING0_RING0_SHARED_H_
#define CUBE_VMM_RING0_RING0_SHARED_H_

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/result.h"
#include "vmm/bus.h"
#include "vmm/guest_memory.h"
#include "vmm/irq_line.h"
#include "vmm/kvm/kvm_vm.h"
#include "vmm/ring0/code_cache.h"
#include "vmm/ring0/interpreter_observer.h"
#include "vmm/ring0/kvm_stub.h"
#include "vmm/ring0/page_flags.h"
#include "vmm/ring0/ram_slots.h"
#include "vmm/ring0/ring0_caches.h"
#include "vmm/ring0/table_tracker.h"

namespace cube::vmm::ring0 {

// What the engines of a VM's vCPUs have in common. One vCPU at a time is in ring 0 under the
// engine: all of this, and the guest's kernel, is used under `lock`, which an engine gives up while
// KVM runs and, if others wait, at every poll. User mode runs in parallel.
class Ring0Shared : public InterruptController {
 public:
  // All that it is made from must outlive it. `caches` are of a guest whose memory was the same, or
  // none.
  static Result<std::unique_ptr<Ring0Shared>> Create(const KvmVm& vm, const GuestMemory& memory,
                                                     const Bus* ports, const Bus* mmio,
                                                     uint32_t stub_slot,
                                                     std::optional<Ring0Caches> caches);
  // What was decoded, once no engine is left; this is of no use after. Pages that the guest has
  // written meanwhile are the caller's to drop from it.
  Ring0Caches TakeCaches();

  // Takes and gives up the lock, between blocks; Yield() does both if another vCPU waits for it.
  void Acquire();
  void Release() { lock_.unlock(); }
  // With `waits`, for something that other vCPUs must do, the host's processor is offered as well.
  void Yield(bool waits);
  // A vCPU that is about to leave ring 0, without the lock: gives way to one that waits as above.
  void GiveWay() const;
  // An interrupt is on its way to these vCPUs (bits by number): the engines that are interpreting
  // ask KVM for it at their next poll. Any thread.
  void AnnounceInterrupt(uint32_t vcpus);
  static constexpr uint32_t kAllVcpus = (1u << kMaxCpus) - 1;
  // KVM's own, and an engine that is interpreting sees it at its next poll. An eventfd of KVM_IRQFD
  // has a thread of the kernel's do it some time later.
  void RaiseEdge(uint32_t gsi) override;
  // Has the next Acquire() drop what was decoded: after boot, most of it never runs again. Any
  // thread.
  void RequestTrim() { trim_.store(true, std::memory_order_relaxed); }

  // With `on`, a vCPU that has nothing to do until its timer fires does not wait for it: the guest's
  // clock (kvmclock, which it must take its time from) is set on by as much instead. Any thread.
  void SkipIdleTime(bool on) { skips_idle_time_.store(on, std::memory_order_relaxed); }
  bool skips_idle_time() const { return skips_idle_time_.load(std::memory_order_relaxed); }
  // Sets the clock on, and counts. Under the lock.
  Status AdvanceClock(uint64_t nanoseconds);
  // How much has been skipped. Any thread.
  uint64_t skipped_nanoseconds() const { return skipped_.load(std::memory_order_relaxed); }

  // Drops all that was learnt of the guest, whose memory has become another; no engine is left.
  void Forget();

  const GuestMemory& memory;
  const Bus* ports;
  const Bus* mmio;
  PageFlags flags;
  TableTracker tables;
  CodeCache code;
  StubMemory stubs;
  // CR3s of the engines, for TableTracker::Rebuild(); filled as vCPUs are made.
  std::vector<const uint64_t*> roots;
  // What each engine looks at to know of an interrupt.
  std::array<std::atomic<bool>, kMaxCpus> interrupts = {};
  // Called, under the lock, before KVM is handed an access to an I/O port; may be empty. Set before the
  // vCPUs start.
  std::function<Status(uint16_t port)> foreign_port;
  // RAM that KVM has not got yet; null if it has all of it. Set before the vCPUs start.
  RamSlots* slots = nullptr;
  // Null but in tests; set before the vCPUs start.
  InterpreterObserver* observer = nullptr;

 private:
  Ring0Shared(const KvmVm& vm, const GuestMemory& memory, const Bus* ports, const Bus* mmio,
              Ring0Caches caches, StubMemory stub_memory);

  const KvmVm& vm_;
  bool TryAcquire();

  std::mutex lock_;
  std::atomic<int> waiting_{0};
  std::atomic<uint64_t> turn_{0};  // counts the takers of the lock
  std::atomic<int> offering_{0};   // vCPUs that have offered their processor and want it back
  std::atomic<bool> trim_{false};
  std::atomic<bool> skips_idle_time_{false};
  std::atomic<uint64_t> skipped_{0};
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_RING0_SHARED_H_
