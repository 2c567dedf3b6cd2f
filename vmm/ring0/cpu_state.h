#ifndef CUBE_VMM_RING0_CPU_STATE_H_
#define CUBE_VMM_RING0_CPU_STATE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "vmm/kvm/kvm_api.h"
#include "vmm/ring0/cpu.h"

namespace cube::vmm::ring0 {

// What an instruction of ring 0 may change of a vCPU, as the interpreter and KVM both have it; for
// tests that hold one against the other. KERNEL_GS_BASE is not among KVM's registers: its owner
// compares it apart.
struct CpuState {
  std::array<uint64_t, 16> r = {};
  uint64_t rip = 0, rflags = 0;
  uint64_t fs_base = 0, gs_base = 0;
  uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0;
  std::array<uint16_t, 6> selectors = {};  // ES, CS, SS, DS, FS, GS

  // Of the interpreter, about to execute at `rip`.
  static CpuState Of(const Cpu& cpu, uint64_t rip);
  static CpuState Of(const kvm_regs& regs, const kvm_sregs& sregs);

  // Sets `regs` and `sregs` to this, with descriptors as the engine shows them to KVM.
  void To(kvm_regs* regs, kvm_sregs* sregs) const;

  // The first difference, "rbx: interpreted 1, KVM 2", but for `ignored_flags`.
  std::optional<std::string> Difference(const CpuState& kvm, uint64_t ignored_flags) const;
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_CPU_STATE_H_
