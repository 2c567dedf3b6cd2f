#ifndef CUBE_VMM_CLI_DEVICE_OPTIONS_H_
#define CUBE_VMM_CLI_DEVICE_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/event_loop.h"
#include "vmm/machine.h"

namespace cube::vmm {

// The virtio devices of `cube-vmm run`, as given.
struct DeviceOptions {
  std::vector<std::string> disks;    // vda, vdb, ... (disk_option.h)
  std::vector<std::string> net;      // eth0, eth1, ... (net_option.h)
  uint64_t balloon_mib = 0;          // the guest is asked to give back
  std::optional<std::string> vsock;  // PATH[,cid=N]
  std::vector<std::string> shares;   // share_option.h

  // Nothing but what every machine has: of the host the guest knows nothing that could be another
  // thing the next time.
  bool Plain() const {
    return disks.empty() && net.empty() && balloon_mib == 0 && !vsock && shares.empty();
  }
};

// The words that devices add to the kernel's command line.
Result<std::string> DeviceWords(const DeviceOptions& options);

// Makes the devices, in the order in which the guest finds them. They work on `loop`. Errors name
// the option at fault.
Result<std::vector<NamedDevice>> MakeDevices(const DeviceOptions& options, EventLoop* loop);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_DEVICE_OPTIONS_H_
