#ifndef CUBE_VMM_RING0_RING0_SHARED_H_
#define CUBE_VMM_RING0_RING0_SHARED_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "base/result.h"
#include "vmm/bus.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm_vm.h"
#include "vmm/ring0/code_cache.h"
#include "vmm/ring0/page_flags.h"
#include "vmm/ring0/kvm_stub.h"
#include "vmm/ring0/table_tracker.h"

namespace cube::vmm::ring0 {

// What the engines of a VM's vCPUs have in common. One vCPU at a time is in ring 0 under the engine:
// all of this, and the guest's kernel, is used under `lock`, which an engine gives up while KVM runs
// and, if others wait, at every poll. User mode runs in parallel.
class Ring0Shared {
 public:
  // `ports` and `mmio` are the VM's, and must outlive this.
  static Result<std::unique_ptr<Ring0Shared>> Create(const KvmVm& vm, const GuestMemory& memory,
                                                     const Bus* ports, const Bus* mmio,
                                                     uint32_t stub_slot);

  // Takes and gives up the lock, between blocks; Yield() does both if another vCPU waits for it.
  void Acquire();
  void Release() { lock_.unlock(); }
  void Yield();
  // An interrupt was sent between vCPUs: the others ask KVM for theirs soon. Under the lock.
  void AnnounceInterrupt(const std::atomic<bool>* sender);
  // Has the next Acquire() drop what was decoded: after boot, most of it never runs again. Any
  // thread.
  void RequestTrim() { trim_.store(true, std::memory_order_relaxed); }

  const GuestMemory& memory;
  const Bus* ports;
  const Bus* mmio;
  PageFlags flags;
  TableTracker tables;
  CodeCache code;
  StubMemory stubs;
  // CR3s of the engines, for TableTracker::Rebuild(); filled as vCPUs are made.
  std::vector<const uint64_t*> roots;
  // What each engine looks at to know of an interrupt; filled likewise.
  std::vector<std::atomic<bool>*> interrupts;

 private:
  Ring0Shared(const GuestMemory& memory, const Bus* ports, const Bus* mmio, PageFlags page_flags,
              CodeCache code_cache, StubMemory stub_memory);

  std::mutex lock_;
  std::atomic<int> waiting_{0};
  std::atomic<uint64_t> turn_{0};  // counts the takers of the lock
  std::atomic<bool> trim_{false};
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_RING0_SHARED_H_
