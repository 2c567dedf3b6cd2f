#include "vmm/ring0/ring0_shared.h"

#include <sched.h>
#include <x86intrin.h>

#include <algorithm>

namespace cube::vmm::ring0 {

Ring0Shared::Ring0Shared(const KvmVm& vm, const GuestMemory& guest_memory, const Bus* port_bus,
                         const Bus* mmio_bus, Ring0Caches caches, StubMemory stub_memory)
    : memory(guest_memory),
      ports(port_bus),
      mmio(mmio_bus),
      flags(std::move(caches.flags)),
      tables(guest_memory, &flags),
      code(std::move(caches.code)),
      stubs(std::move(stub_memory)),
      vm_(vm) {
  code.MarkIn(&flags);
}

Result<std::unique_ptr<Ring0Shared>> Ring0Shared::Create(const KvmVm& vm, const GuestMemory& memory,
                                                         const Bus* ports, const Bus* mmio,
                                                         uint32_t stub_slot,
                                                         std::optional<Ring0Caches> caches) {
  uint64_t end = 0;
  for (const MemoryRegion& region : memory.regions()) {
    end = std::max<uint64_t>(end, region.guest_address + region.host.size());
  }
  if (!caches) {
    CUBE_ASSIGN(caches, Ring0Caches::Create(end));
  }
  CUBE_ASSIGN(StubMemory stubs, StubMemory::Create(vm, stub_slot));
  return std::unique_ptr<Ring0Shared>(
      new Ring0Shared(vm, memory, ports, mmio, std::move(*caches), std::move(stubs)));
}

// Ring 0 is mostly held for some microseconds, less than it takes to sleep and be woken.
bool Ring0Shared::TryAcquire() {
  constexpr int kSpins = 400;
  for (int i = 0; i < kSpins; ++i) {
    if (lock_.try_lock()) return true;
    for (int pauses = 0; pauses < 8; ++pauses) _mm_pause();
  }
  return false;
}

void Ring0Shared::Acquire() {
  if (!lock_.try_lock()) {
    waiting_.fetch_add(1, std::memory_order_relaxed);
    if (!TryAcquire()) lock_.lock();
    waiting_.fetch_sub(1, std::memory_order_relaxed);
  }
  turn_.fetch_add(1, std::memory_order_relaxed);
  if (trim_.exchange(false, std::memory_order_relaxed)) code.Trim();
}

Status Ring0Shared::AdvanceClock(uint64_t nanoseconds) {
  CUBE_ASSIGN(uint64_t now, vm_.GetClock());
  CUBE_TRY(vm_.SetClock(now + nanoseconds));
  skipped_.fetch_add(nanoseconds, std::memory_order_relaxed);
  return OkStatus();
}

Ring0Caches Ring0Shared::TakeCaches() {
  tables.Clear();
  std::vector<uint32_t> pieces;
  if (slots != nullptr) pieces = slots->pieces();
  return {std::move(flags), std::move(code), std::move(pieces)};
}

void Ring0Shared::Forget() {
  roots.clear();
  tables.Clear();
  code.DropAll();
  for (std::atomic<bool>& announced : interrupts) announced.store(false);
}

void Ring0Shared::AnnounceInterrupt(uint32_t vcpus) {
  for (size_t i = 0; i < interrupts.size(); ++i) {
    if ((vcpus >> i & 1) != 0) interrupts[i].store(true, std::memory_order_release);
  }
}

void Ring0Shared::GiveWay() const {
  if (offering_.load(std::memory_order_relaxed) != 0) sched_yield();
}

void Ring0Shared::RaiseEdge(uint32_t gsi) {
  // A GSI that KVM does not know is a mistake of the VMM's, found when the line was bound.
  (void)vm_.PulseIrq(gsi);
  AnnounceInterrupt(kAllVcpus);
}

void Ring0Shared::Yield(bool waits) {
  if (waits) {
    // Whoever is waited for, by a shoot-down for one, may be without a processor to run on, which
    // the host would give it at the next of its ticks, milliseconds from now.
    offering_.fetch_add(1, std::memory_order_relaxed);
    lock_.unlock();
    sched_yield();
    offering_.fetch_sub(1, std::memory_order_relaxed);
    return Acquire();
  }
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
