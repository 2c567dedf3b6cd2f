#include "vmm/ring0/cpu_state.h"

#include <algorithm>

#include "base/result.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

constexpr const char* kRegisterNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr const char* kSelectorNames[] = {"es", "cs", "ss", "ds", "fs", "gs"};

}  // namespace

CpuState CpuState::Of(const Cpu& cpu, uint64_t rip) {
  CpuState state;
  std::copy_n(cpu.r, 16, state.r.begin());
  state.rip = rip;
  state.rflags = cpu.rflags();
  state.fs_base = cpu.segment_base[kFsSegment];
  state.gs_base = cpu.segment_base[kGsSegment];
  state.cr0 = cpu.cr0;
  state.cr2 = cpu.cr2;
  state.cr3 = cpu.cr3;
  state.cr4 = cpu.cr4;
  state.efer = cpu.efer;
  state.selectors = {cpu.es, cpu.cs, cpu.ss, cpu.ds, cpu.fs, cpu.gs};
  return state;
}

CpuState CpuState::Of(const kvm_regs& regs, const kvm_sregs& sregs) {
  CpuState state;
  state.r = {regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi,
             regs.r8,  regs.r9,  regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15};
  state.rip = regs.rip;
  state.rflags = regs.rflags;
  state.fs_base = sregs.fs.base;
  state.gs_base = sregs.gs.base;
  state.cr0 = sregs.cr0;
  state.cr2 = sregs.cr2;
  state.cr3 = sregs.cr3;
  state.cr4 = sregs.cr4;
  state.efer = sregs.efer;
  state.selectors = {sregs.es.selector, sregs.cs.selector, sregs.ss.selector,
                     sregs.ds.selector, sregs.fs.selector, sregs.gs.selector};
  return state;
}

void CpuState::To(kvm_regs* regs, kvm_sregs* sregs) const {
  *regs = {.rax = r[0],
           .rbx = r[3],
           .rcx = r[1],
           .rdx = r[2],
           .rsi = r[6],
           .rdi = r[7],
           .rsp = r[4],
           .rbp = r[5],
           .r8 = r[8],
           .r9 = r[9],
           .r10 = r[10],
           .r11 = r[11],
           .r12 = r[12],
           .r13 = r[13],
           .r14 = r[14],
           .r15 = r[15],
           .rip = rip,
           .rflags = rflags};
  kvm_segment* segments[] = {&sregs->es, &sregs->cs, &sregs->ss,
                             &sregs->ds, &sregs->fs, &sregs->gs};
  if (sregs->cs.selector != selectors[1]) sregs->cs = LongModeCode(selectors[1], 0);
  if (sregs->ss.selector != selectors[2]) sregs->ss = LongModeData(selectors[2], 0);
  for (size_t i = 0; i < selectors.size(); ++i) segments[i]->selector = selectors[i];
  sregs->fs.base = fs_base;
  sregs->gs.base = gs_base;
  sregs->cr0 = cr0;
  sregs->cr2 = cr2;
  sregs->cr3 = cr3;
  sregs->cr4 = cr4;
  sregs->efer = efer;
}

std::optional<std::string> CpuState::Difference(const CpuState& kvm, uint64_t ignored_flags) const {
  auto differs = [](const char* name, uint64_t ours,
                    uint64_t theirs) -> std::optional<std::string> {
    if (ours == theirs) return std::nullopt;
    return Format("%s: interpreted %#lx, KVM %#lx", name, ours, theirs);
  };
  for (size_t i = 0; i < r.size(); ++i) {
    if (r[i] != kvm.r[i]) return differs(kRegisterNames[i], r[i], kvm.r[i]);
  }
  for (size_t i = 0; i < selectors.size(); ++i) {
    if (selectors[i] != kvm.selectors[i]) {
      return differs(kSelectorNames[i], selectors[i], kvm.selectors[i]);
    }
  }
  const struct {
    const char* name;
    uint64_t ours, theirs;
  } kRest[] = {
      {"rip", rip, kvm.rip},
      {"rflags", rflags & ~ignored_flags, kvm.rflags & ~ignored_flags},
      {"fs base", fs_base, kvm.fs_base},
      {"gs base", gs_base, kvm.gs_base},
      {"cr0", cr0, kvm.cr0},
      {"cr2", cr2, kvm.cr2},
      {"cr3", cr3, kvm.cr3},
      {"cr4", cr4, kvm.cr4},
      {"efer", efer, kvm.efer},
  };
  for (const auto& [name, ours, theirs] : kRest) {
    if (ours != theirs) return differs(name, ours, theirs);
  }
  return std::nullopt;
}

}  // namespace cube::vmm::ring0
