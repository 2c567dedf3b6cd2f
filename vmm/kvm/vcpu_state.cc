#include "vmm/kvm/vcpu_state.h"

#include <algorithm>

#include "vmm/segments.h"

namespace cube::vmm {
namespace {

constexpr size_t kMaxCpuidEntries = 256;
constexpr size_t kMaxMsrs = 1024;
constexpr size_t kMaxXsave = 64 * 1024;
// A TSC that runs this much faster or slower is another TSC, in parts per million (as KVM has it).
constexpr uint64_t kTscTolerance = 250;

// A tick that is due at once would come before whatever the guest goes on with, such as telling that
// it is ready. A timer may always be late.
constexpr uint64_t kLeastDelayMilliseconds = 5;

}  // namespace

Result<VcpuState> VcpuState::Capture(KvmVcpu* vcpu, std::span<const uint32_t> msr_indices,
                                     std::span<const kvm_cpuid_entry2> cpuid) {
  VcpuState state;
  state.cpuid.assign(cpuid.begin(), cpuid.end());
  CUBE_TRY(vcpu->FlushRegistersNow());
  CUBE_ASSIGN(const kvm_regs* regs, vcpu->regs());
  CUBE_ASSIGN(const kvm_sregs* sregs, vcpu->sregs());
  state.regs = *regs;
  state.sregs = *sregs;
  // First of all what an interrupt may still change: KVM_GET_MP_STATE takes pending INIT and SIPI.
  CUBE_ASSIGN(state.mp_state, vcpu->GetMpState());
  CUBE_ASSIGN(state.xcrs, vcpu->GetXcrs());
  state.xsave.resize(vcpu->xsave_size());
  CUBE_TRY(vcpu->GetXsave(state.xsave));
  CUBE_ASSIGN(state.lapic, vcpu->GetLapic());
  CUBE_ASSIGN(state.events, vcpu->GetEvents());
  CUBE_ASSIGN(state.debugregs, vcpu->GetDebugregs());
  state.tsc_khz = vcpu->TscKhz();
  for (uint32_t index : msr_indices) {
    auto value = vcpu->GetMsrs({&index, 1});
    if (!value.ok()) continue;  // listed, but not for this vCPU's CPUID
    const kvm_msr_entry& entry = (*value)[0];
    if (index == kMsrTsc) {
      state.tsc = entry.data;
    } else if (index == kMsrTscDeadline) {
      state.tsc_deadline = entry.data;
    } else if (vcpu->SetMsrs({&entry, 1}).ok()) {
      // What KVM refuses to take back it will refuse to a clone.
      state.msrs.push_back(entry);
    }
  }
  return state;
}

Status VcpuState::Apply(KvmVcpu* vcpu) const {
  uint64_t khz = vcpu->TscKhz();
  uint64_t difference = khz > tsc_khz ? khz - tsc_khz : tsc_khz - khz;
  if (difference > tsc_khz / 1000000 * kTscTolerance) {
    return Errorf("saved with a TSC of %llu kHz, this host's has %llu kHz",
                  static_cast<unsigned long long>(tsc_khz), static_cast<unsigned long long>(khz));
  }
  CUBE_TRY(vcpu->SetCpuid(cpuid));
  return ApplyAgain(vcpu);
}

Status VcpuState::ApplyAgain(KvmVcpu* vcpu) const {
  CUBE_ASSIGN(kvm_sregs * new_sregs, vcpu->mutable_sregs());
  *new_sregs = sregs;
  CUBE_ASSIGN(kvm_regs * new_regs, vcpu->mutable_regs());
  *new_regs = regs;
  CUBE_TRY(vcpu->FlushRegistersNow());
  CUBE_TRY(vcpu->SetXcrs(xcrs));
  if (xsave.size() < vcpu->xsave_size()) {
    // Zeros: components that were not there are in their initial state (XSTATE_BV).
    std::vector<uint8_t> area = xsave;
    area.resize(vcpu->xsave_size());
    CUBE_TRY(vcpu->SetXsave(area));
  } else {
    CUBE_TRY(vcpu->SetXsave(xsave));
  }
  CUBE_TRY(vcpu->SetMsrs(msrs));
  CUBE_TRY(vcpu->SetLapic(lapic));
  CUBE_TRY(vcpu->SetEvents(events));
  CUBE_TRY(vcpu->SetDebugregs(debugregs));
  return vcpu->SetMpState(mp_state);
}

Status VcpuState::StartClock(KvmVcpu* vcpu, uint64_t host_tsc) const {
  CUBE_TRY(vcpu->SetTscOffset(tsc - host_tsc));
  if (tsc_deadline == 0) return OkStatus();
  // Read back: such a KVM accepts any offset, and goes on with none.
  CUBE_ASSIGN(uint64_t offset, vcpu->TscOffset());
  uint64_t now = host_tsc + offset;
  uint64_t wanted = std::max(tsc_deadline + (now - tsc), now + tsc_khz * kLeastDelayMilliseconds);
  const kvm_msr_entry deadline = {kMsrTscDeadline, 0, wanted};
  return vcpu->SetMsrs({&deadline, 1});
}

void VcpuState::Write(StateWriter* writer) const {
  writer->Put(kVersion);
  writer->PutArray(cpuid);
  writer->PutForeign(regs);
  writer->PutForeign(sregs);
  writer->PutForeign(xcrs);
  writer->PutBytes(xsave);
  writer->PutArray(msrs);
  writer->PutForeign(lapic);
  writer->PutForeign(events);
  writer->PutForeign(debugregs);
  writer->PutForeign(mp_state);
  writer->Put(tsc);
  writer->Put(tsc_deadline);
  writer->Put(tsc_khz);
}

Result<VcpuState> VcpuState::Read(StateReader* reader) {
  VcpuState state;
  CUBE_TRY(reader->GetVersion(kVersion));
  CUBE_TRY(reader->GetArray(kMaxCpuidEntries, &state.cpuid));
  CUBE_TRY(reader->GetForeign(&state.regs));
  CUBE_TRY(reader->GetForeign(&state.sregs));
  CUBE_TRY(reader->GetForeign(&state.xcrs));
  CUBE_TRY(reader->GetArray(kMaxXsave, &state.xsave));
  CUBE_TRY(reader->GetArray(kMaxMsrs, &state.msrs));
  CUBE_TRY(reader->GetForeign(&state.lapic));
  CUBE_TRY(reader->GetForeign(&state.events));
  CUBE_TRY(reader->GetForeign(&state.debugregs));
  CUBE_TRY(reader->GetForeign(&state.mp_state));
  CUBE_TRY(reader->Get(&state.tsc));
  CUBE_TRY(reader->Get(&state.tsc_deadline));
  CUBE_TRY(reader->Get(&state.tsc_khz));
  return state;
}

}  // namespace cube::vmm
