#include "vmm/ring0/ring0_shared.h"

#include <sched.h>

#include <algorithm>

namespace cube::vmm::ring0 {

Ring0Shared::Ring0Shared(const GuestMemory& guest_memory, const Bus* port_bus, const Bus* mmio_bus,
                         PageFlags page_flags, CodeCache code_cache, StubMemory stub_memory)
    : memory(guest_memory),
      ports(port_bus),
      mmio(mmio_bus),
      flags(std::move(page_flags)),
      tables(guest_memory, &flags),
      code(std::move(code_cache)),
      stubs(std::move(stub_memory)) {
  code.MarkIn(&flags);
}

Result<std::unique_ptr<Ring0Shared>> Ring0Shared::Create(const KvmVm& vm,
                                                         const GuestMemory& memory,
                                                         const Bus* ports, const Bus* mmio,
                                                         uint32_t stub_slot) {
  uint64_t end = 0;
  for (const MemoryRegion& region : memory.regions()) {
    end = std::max<uint64_t>(end, region.guest_address + region.host.size());
  }
  CUBE_ASSIGN(PageFlags flags, PageFlags::Create(end));
  CUBE_ASSIGN(CodeCache code, CodeCache::Create());
  CUBE_ASSIGN(StubMemory stubs, StubMemory::Create(vm, stub_slot));
  return std::unique_ptr<Ring0Shared>(new Ring0Shared(
      memory, ports, mmio, std::move(flags), std::move(code), std::move(stubs)));
}

void Ring0Shared::Acquire() {
  if (!lock_.try_lock()) {
    waiting_.fetch_add(1, std::memory_order_relaxed);
    lock_.lock();
    waiting_.fetch_sub(1, std::memory_order_relaxed);
  }
  turn_.fetch_add(1, std::memory_order_relaxed);
  if (trim_.exchange(false, std::memory_order_relaxed)) code.DropAll();
}

void Ring0Shared::AnnounceInterrupt(const std::atomic<bool>* sender) {
  for (std::atomic<bool>* announced : interrupts) {
    if (announced != sender) announced->store(true, std::memory_order_relaxed);
  }
}

void Ring0Shared::Yield() {
  if (waiting_.load(std::memory_order_relaxed) == 0) return;
  // The lock is not fair: who waits must be given the time to wake up and take it.
  constexpr int kPatience = 1000;
  uint64_t turn = turn_.load(std::memory_order_relaxed);
  lock_.unlock();
  for (int i = 0; i < kPatience && turn_.load(std::memory_order_relaxed) == turn &&
                  waiting_.load(std::memory_order_relaxed) != 0;
       ++i) {
    sched_yield();
  }
  Acquire();
}

}  // namespace cube::vmm::ring0
