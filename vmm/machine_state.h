#ifndef CUBE_VMM_MACHINE_STATE_H_
#define CUBE_VMM_MACHINE_STATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "vmm/kvm/vcpu_state.h"
#include "vmm/kvm/vm_state.h"

namespace cube::vmm {

// A machine between two instructions, without its memory.
struct MachineState {
  VmState vm;
  std::vector<VcpuState> vcpus;
  std::vector<uint8_t> serial;
  // Of each virtio device with its transport, in the order of the machine's.
  std::vector<std::vector<uint8_t>> devices;
};

// Whether a vCPU of this host can go on from `saved`: an error names the leaf and the features that
// are missing here.
Status CheckCpuid(std::span<const kvm_cpuid_entry2> saved,
                  std::span<const kvm_cpuid_entry2> offered);

}  // namespace cube::vmm

#endif  // CUBE_VMM_MACHINE_STATE_H_
