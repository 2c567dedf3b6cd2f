#ifndef CUBE_VMM_KVM_KVM_VM_H_
#define CUBE_VMM_KVM_KVM_VM_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/kvm/kvm_api.h"
#include "vmm/kvm/kvm_vcpu.h"

namespace cube::vmm {

// One VM (KVM API section 4, "vm ioctl"). The handle keeps the VM alive; vCPUs keep their own
// reference. Any thread may use it.
class KvmVm {
 public:
  KvmVm(UniqueFd fd, int vcpu_mmap_size) : fd_(std::move(fd)), vcpu_mmap_size_(vcpu_mmap_size) {}

  int CheckExtension(int capability) const;
  // KVM_SET_TSS_ADDR (4.35) and KVM_SET_IDENTITY_MAP_ADDR (4.41), at the places of memory_map.h.
  Status SetTssAndIdentityMap() const;
  // KVM_CREATE_IRQCHIP (4.24): PICs, IO-APIC and local APICs in the kernel.
  Status CreateIrqchip() const;
  // KVM_CREATE_PIT2 (4.71), with a dummy speaker port.
  Status CreatePit() const;
  // KVM_SET_USER_MEMORY_REGION (4.36). `host` must stay mapped while the slot exists.
  Status SetMemorySlot(uint32_t slot, uint64_t guest_address, std::span<uint8_t> host) const;
  // KVM_IRQFD (4.75): a count on `eventfd` raises an edge on `gsi`.
  Status AssignIrqfd(int eventfd, uint32_t gsi) const;
  // KVM_IOEVENTFD (4.59): a 4-byte guest store of `value` to MMIO `address` adds one to `eventfd`
  // and does not leave the kernel.
  Status AssignIoeventfd(int eventfd, uint64_t address, uint32_t value) const;
  // KVM_IRQ_LINE (4.25), twice: an edge on `gsi`, which has arrived when this returns.
  Status PulseIrq(uint32_t gsi) const;
  // KVM_CAP_X86_USER_SPACE_MSR and KVM_X86_SET_MSR_FILTER (4.97): reads and writes of the MSRs in
  // `exiting` leave to user space; all others stay in the kernel. At most KVM_MSR_FILTER_MAX_RANGES of them.
  Status FilterMsrs(std::span<const uint32_t> exiting) const;
  // KVM_GET_IRQCHIP (4.25) of chip->chip_id, and KVM_SET_IRQCHIP (4.26).
  Status GetIrqchip(kvm_irqchip* chip) const;
  Status SetIrqchip(const kvm_irqchip& chip) const;
  // KVM_GET_PIT2 (4.84), KVM_SET_PIT2 (4.85).
  Result<kvm_pit_state2> GetPit() const;
  Status SetPit(const kvm_pit_state2& state) const;
  // KVM_GET_CLOCK (4.29), KVM_SET_CLOCK (4.30): kvmclock in nanoseconds.
  Result<uint64_t> GetClock() const;
  Status SetClock(uint64_t nanoseconds) const;
  // KVM_CREATE_VCPU (4.7).
  Result<KvmVcpu> CreateVcpu(uint32_t id) const;

  int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
  int vcpu_mmap_size_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_KVM_KVM_VM_H_
