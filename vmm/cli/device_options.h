#ifndef CUBE_VMM_CLI_DEVICE_OPTIONS_H_
#define CUBE_VMM_CLI_DEVICE_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "devices/blk/disk.h"
#include "snapshot/hardware.h"
#include "vmm/event_loop.h"
#include "vmm/machine.h"

namespace cube::vmm {

// The virtio devices of `cube-vmm run`, as given.
struct DeviceOptions {
  std::vector<std::string> disks;    // vda, vdb, ... (disk_option.h)
  std::vector<std::string> net;      // eth0, eth1, ... (net_option.h)
  bool net_later = false;            // a clone's NICs that are not named wait for Net::Plug()
  uint64_t balloon_mib = 0;          // the guest is asked to give back
  std::optional<std::string> vsock;  // PATH[,cid=N]
  std::vector<std::string> shares;   // share_option.h
  uint32_t volumes = 0;              // shares without a directory, fewer if there is no room
};

// The words that devices add to the kernel's command line.
Result<std::string> DeviceWords(const DeviceOptions& options);

// A file by what tells one content from another without reading it.
std::string FileKey(const std::string& path);

// What of the options a guest may know of, as text that is the same for two machines only if a
// guest frozen in one can go on in the other. Nothing if a guest with these devices is not to be
// frozen for others: a disk keeps what is written to it, or a NIC's address is to be its own.
std::optional<std::string> TemplateKey(const DeviceOptions& options);

// Where devices are made.
struct DevicePlace {
  EventLoop* loop;
  std::string scratch;  // a folder for temporary overlays
  std::string vsock;    // the socket's path, unless an option says another
};

struct MadeDevices {
  std::vector<NamedDevice> devices;  // in the order in which the guest finds them
  snapshot::Hardware hardware;       // what a snapshot says of them
  std::string vsock;  // where host clients reach the guest; empty if there is no vsock
};

// Makes the devices. Errors name the option at fault.
Result<MadeDevices> MakeDevices(const DeviceOptions& options, const DevicePlace& place);

// Makes those of a clone: `hardware` over what `disks` hold, each disk under an overlay of its own.
// `options` say what the host has behind them: a TAP for each NIC, in their order (the link of a
// NIC without one is down), the socket's path, other directories for shares by their tags. Their
// disks are not looked at but for limits.
Result<MadeDevices> MakeCloneDevices(const snapshot::Hardware& hardware,
                                     const std::vector<::cube::devices::blk::DiskStack>& disks,
                                     const DeviceOptions& options, const DevicePlace& place);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_DEVICE_OPTIONS_H_
