#include "vmm/kvm/vm_state.h"

namespace cube::vmm {

Result<VmState> VmState::Capture(const KvmVm& vm,
                                 const std::optional<kvm_pit_state2>& deferred_pit) {
  VmState state;
  for (uint32_t id = 0; id < 3; ++id) {
    state.chips[id].chip_id = id;
    CUBE_TRY(vm.GetIrqchip(&state.chips[id]));
  }
  if (deferred_pit) {
    state.pit = *deferred_pit;
  } else {
    CUBE_ASSIGN(state.pit, vm.GetPit());
  }
  CUBE_ASSIGN(state.clock, vm.GetClock());
  return state;
}

Status VmState::Apply(const KvmVm& vm, bool with_pit) const {
  for (const kvm_irqchip& chip : chips) CUBE_TRY(vm.SetIrqchip(chip));
  return with_pit ? vm.SetPit(pit) : OkStatus();
}

Status VmState::StartClock(const KvmVm& vm) const { return vm.SetClock(clock); }

void VmState::Write(StateWriter* writer) const {
  writer->Put(kVersion);
  for (const kvm_irqchip& chip : chips) writer->PutForeign(chip);
  writer->PutForeign(pit);
  writer->Put(clock);
}

Result<VmState> VmState::Read(StateReader* reader) {
  VmState state;
  CUBE_TRY(reader->GetVersion(kVersion));
  for (uint32_t id = 0; id < 3; ++id) {
    CUBE_TRY(reader->GetForeign(&state.chips[id]));
    if (state.chips[id].chip_id != id) {
      return Errorf("interrupt controller %u where %u is wanted", state.chips[id].chip_id, id);
    }
  }
  CUBE_TRY(reader->GetForeign(&state.pit));
  CUBE_TRY(reader->Get(&state.clock));
  return state;
}

}  // namespace cube::vmm
