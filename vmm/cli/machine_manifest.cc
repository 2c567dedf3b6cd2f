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

snapshot::Manifest DescribeMachine(const MachineConfig& config, const snapshot::Hardware& hardware,
                                   const Machine& machine, const snapshot::Defaults& defaults) {
  snapshot::Manifest about;
  about.memory_bytes = config.memory;
  about.cpus = config.cpus;
  about.ring0 = Ring0Name(config.ring0);
  about.kernel = machine.command_line();
  for (const auto& device : machine.virtio()) about.devices.push_back(device->name());
  about.hardware = hardware;
  about.defaults = defaults;
  for (snapshot::DiskHardware& disk : about.hardware.disks) {
    // Of the snapshot it came from.
    disk.layer_blocks = 0;
    disk.layer_xxh3.clear();
  }
  return about;
}

bool IsOfMachine(const snapshot::Manifest& about, const MachineConfig& config,
                 const snapshot::Hardware& hardware) {
  if (about.memory_bytes != config.memory || about.cpus != config.cpus ||
      about.ring0 != Ring0Name(config.ring0) ||
      about.hardware.DeviceNames() != hardware.DeviceNames()) {
    return false;
  }
  for (size_t i = 0; i < hardware.disks.size(); ++i) {
    const snapshot::DiskHardware& one = about.hardware.disks[i];
    const snapshot::DiskHardware& other = hardware.disks[i];
    if (one.files != other.files || one.read_only != other.read_only) return false;
  }
  return true;
}

}  // namespace cube::vmm
