#include "vmm/cli/device_options.h"

#include "devices/rng/rng.h"

namespace cube::vmm {

Result<std::vector<NamedDevice>> MakeDevices(const DeviceOptions&, EventLoop*) {
  std::vector<NamedDevice> made;
  made.push_back({"rng", ::cube::devices::Rng::Create()});
  return made;
}

}  // namespace cube::vmm
