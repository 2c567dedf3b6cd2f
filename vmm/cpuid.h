#ifndef CUBE_VMM_CPUID_H_
#define CUBE_VMM_CPUID_H_

#include <cstdint>
#include <span>
#include <vector>

#include "vmm/kvm/kvm_api.h"

namespace cube::vmm {

struct CpuidOptions {
  uint32_t vcpu_id = 0;  // also the APIC id
  uint32_t vcpu_count = 1;
  bool tsc_deadline_timer = false;  // KVM_CAP_TSC_DEADLINE_TIMER
  // KVM's paravirtual features that need a hypercall are hidden: on a host that emulates ring 0 a
  // hypercall never returns.
  bool hide_hypercalls = false;
};

// The CPUID table of one vCPU, from KVM's supported one: topology (one package, one core per vCPU),
// a hypervisor bit, and nothing the VMM does not stand behind: no nested virtualization, no
// performance counters, no MONITOR/MWAIT, no 5-level paging, no protection keys, no supervisor
// XSAVE components.
std::vector<kvm_cpuid_entry2> ShapeCpuid(std::span<const kvm_cpuid_entry2> supported,
                                         const CpuidOptions& options);

// The width of physical addresses (leaf 0x80000008).
uint8_t PhysicalAddressBits(std::span<const kvm_cpuid_entry2> entries);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CPUID_H_
