#include "vmm/cli/machine_manifest.h"

namespace cube::vmm {

const char* Ring0Name(Ring0Mode mode) {
  switch (mode) {
    case Ring0Mode::kNative:
      return "native";
    case Ring0Mode::kEngine:
      return "engine";
    case Ring0Mode::kEmulator:
      return "emulated";
  }
  return "";
}

snapshot::Manifest DescribeMachine(const MachineConfig& config, const Machine& machine) {
  snapshot::Manifest about;
  about.memory_bytes = config.memory;
  about.cpus = config.cpus;
  about.ring0 = Ring0Name(config.ring0);
  about.kernel = machine.command_line();
  for (const auto& device : machine.virtio()) about.devices.push_back(device->name());
  return about;
}

bool IsOfMachine(const snapshot::Manifest& about, const MachineConfig& config,
                 const Machine& machine) {
  return about.memory_bytes == config.memory && about.cpus == config.cpus &&
         about.ring0 == Ring0Name(config.ring0) && about.devices.size() == machine.virtio().size();
}

}  // namespace cube::vmm
