#include "snapshot/machine_sections.h"

#include "base/state_io.h"

namespace cube::snapshot {

std::vector<Section> EncodeMachine(const vmm::MachineState& state) {
  std::vector<Section> sections;
  StateWriter vm;
  state.vm.Write(&vm);
  sections.push_back({SectionTag::kVm, 0, vm.Take()});
  for (uint32_t i = 0; i < state.vcpus.size(); ++i) {
    StateWriter vcpu;
    state.vcpus[i].Write(&vcpu);
    sections.push_back({SectionTag::kVcpu, i, vcpu.Take()});
  }
  sections.push_back({SectionTag::kSerial, 0, state.serial});
  for (uint32_t i = 0; i < state.devices.size(); ++i) {
    sections.push_back({SectionTag::kDevice, i, state.devices[i]});
  }
  return sections;
}

Result<vmm::MachineState> DecodeMachine(const std::vector<Section>& sections,
                                        const Manifest& manifest) {
  size_t expected = 2 + manifest.cpus + manifest.devices.size();
  if (sections.size() != expected) {
    return Errorf("%zu sections, the manifest's machine has %zu", sections.size(), expected);
  }
  vmm::MachineState state;
  CUBE_ASSIGN(const Section* vm, FindSection(sections, SectionTag::kVm, 0));
  StateReader reader(vm->bytes, "section vm");
  CUBE_ASSIGN(state.vm, vmm::VmState::Read(&reader));
  CUBE_TRY(reader.End());
  for (uint32_t i = 0; i < manifest.cpus; ++i) {
    CUBE_ASSIGN(const Section* section, FindSection(sections, SectionTag::kVcpu, i));
    StateReader vcpu(section->bytes, Format("section vcpu %u", i));
    CUBE_ASSIGN(vmm::VcpuState vcpu_state, vmm::VcpuState::Read(&vcpu));
    CUBE_TRY(vcpu.End());
    state.vcpus.push_back(std::move(vcpu_state));
  }
  CUBE_ASSIGN(const Section* serial, FindSection(sections, SectionTag::kSerial, 0));
  state.serial = serial->bytes;
  for (uint32_t i = 0; i < manifest.devices.size(); ++i) {
    CUBE_ASSIGN(const Section* device, FindSection(sections, SectionTag::kDevice, i));
    state.devices.push_back(device->bytes);
  }
  return state;
}

}  // namespace cube::snapshot
