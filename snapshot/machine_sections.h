#ifndef CUBE_SNAPSHOT_MACHINE_SECTIONS_H_
#define CUBE_SNAPSHOT_MACHINE_SECTIONS_H_

#include <vector>

#include "base/result.h"
#include "snapshot/manifest.h"
#include "snapshot/state_file.h"
#include "vmm/machine_state.h"

namespace cube::snapshot {

// A machine's state as sections of the file `state`, and back: as many vCPUs and devices as
// `manifest` says. What a device's own section holds is checked by the device.
std::vector<Section> EncodeMachine(const vmm::MachineState& state);
Result<vmm::MachineState> DecodeMachine(const std::vector<Section>& sections,
                                        const Manifest& manifest);

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_MACHINE_SECTIONS_H_
