#ifndef CUBE_VMM_CLI_MACHINE_MANIFEST_H_
#define CUBE_VMM_CLI_MACHINE_MANIFEST_H_

#include "base/result.h"
#include "snapshot/manifest.h"
#include "vmm/machine.h"

namespace cube::vmm {

// As manifests and reports have it.
const char* Ring0Name(Ring0Mode mode);

// What a snapshot of `machine`, made with `config` and `hardware`, says about it. `defaults` are those
// of what it was cloned from.
snapshot::Manifest DescribeMachine(const MachineConfig& config, const snapshot::Hardware& hardware,
                                   const Machine& machine, const snapshot::Defaults& defaults);

// Whether a snapshot that says `about` can be loaded into `machine` as it runs.
bool IsOfMachine(const snapshot::Manifest& about, const MachineConfig& config,
                 const snapshot::Hardware& hardware);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_MACHINE_MANIFEST_H_
