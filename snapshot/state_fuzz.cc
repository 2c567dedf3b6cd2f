// The file `state`: any bytes, and any bytes as the sections of a machine, with right checksums.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "snapshot/machine_sections.h"
#include "snapshot/state_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cube::snapshot;
  (void)DecodeState({data, size});

  // The first byte says what the rest is a section of; all sections a machine has are there.
  if (size == 0) return 0;
  std::vector<uint8_t> bytes(data + 1, data + size);
  std::vector<Section> sections = {{SectionTag::kVm, 0, {}},
                                   {SectionTag::kVcpu, 0, {}},
                                   {SectionTag::kSerial, 0, {}},
                                   {SectionTag::kDevice, 0, {}}};
  sections[data[0] % sections.size()].bytes = bytes;
  std::vector<uint8_t> file = EncodeState(sections);
  auto decoded = DecodeState(file);
  if (!decoded.ok() || EncodeState(*decoded) != file) abort();
  Manifest manifest;
  manifest.cpus = 1;
  manifest.devices = {"vda"};
  (void)DecodeMachine(*decoded, manifest);
  // And alone, with nothing else to fail on.
  cube::StateReader vm(bytes, "vm"), vcpu(bytes, "vcpu");
  (void)cube::vmm::VmState::Read(&vm);
  (void)cube::vmm::VcpuState::Read(&vcpu);
  return 0;
}
