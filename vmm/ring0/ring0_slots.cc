// Ring0Engine where KVM has only a part of the guest's RAM (RamSlots): what it must be given first,
// and what it says when it comes to something it lacks.
#include <algorithm>
#include <cstring>

#include "vmm/memory_map.h"
#include "vmm/ring0/handler_support.h"
#include "vmm/ring0/ring0_engine.h"

namespace cube::vmm::ring0 {

// User mode's own pages, and the tables that lead there, are TableTracker's to see to.
Status Ring0Engine::EnsureSlots(Mode mode) {
  RamSlots* slots = shared_->slots;
  if (slots == nullptr || slots->complete()) return OkStatus();
  const uint64_t root = cpu_->cr3;
  if (mode == Mode::kUser && root != ensured_user_root_) {
    slots->EnsureMapped(root, sregs_.gdt.base);
    slots->EnsureInterruptStack(root, sregs_.tr.base);
    slots->EnsureMapped(root, lstar_);
    ensured_user_root_ = root;
  }
  // The return to user mode may be the guest's own instruction.
  if ((cpu_->cs & 3) == 3) return slots->status();
  uint64_t stack = cpu_->r[kRsp] / kPageSize, code = cpu_->rip / kPageSize;
  if (root == ensured_root_ && stack == ensured_stack_ && code == ensured_code_) {
    return slots->status();
  }
  slots->EnsureMapped(root, sregs_.gdt.base);
  slots->EnsureFrame(root, cpu_->r[kRsp]);
  slots->EnsureMapped(root, cpu_->rip);
  slots->EnsureMapped(root, cpu_->rip + 15);  // the longest instruction
  ensured_root_ = root;
  ensured_stack_ = stack;
  ensured_code_ = code;
  return slots->status();
}

bool Ring0Engine::CompleteAccess(KvmVcpu* vcpu) {
  kvm_run* run = vcpu->run();
  RamSlots* slots = shared_->slots;
  const uint64_t address = run->mmio.phys_addr;
  if (slots == nullptr || !slots->IsMissing(address)) return false;
  std::span<uint8_t> data(run->mmio.data, std::min<size_t>(run->mmio.len, sizeof run->mmio.data));
  if (run->mmio.is_write != 0) {
    (void)shared_->memory.Write(address, data);
  } else if (!shared_->memory.Read(address, data)) {
    std::fill(data.begin(), data.end(), 0xff);
  }
  slots->Ensure(address);
  ++counters_.late_slots;
  return true;
}

}  // namespace cube::vmm::ring0
