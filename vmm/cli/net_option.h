#ifndef CUBE_VMM_CLI_NET_OPTION_H_
#define CUBE_VMM_CLI_NET_OPTION_H_

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "devices/net/net.h"
#include "vmm/event_loop.h"

namespace cube::vmm {

// One `--net` of `cube-vmm run`: comma-separated KEY=VALUE words.
struct NetOption {
  std::string tap;     // an interface's name
  int fd = -1;         // or a descriptor of a TAP, inherited
  bool later = false;  // or none now: it is plugged in when the machine, or a clone of it, starts
  ::cube::devices::NetOptions device;
  bool own_mac = true;  // a random one: none was given
  // What the agent gives the interface, each as text of IPv4; empty for none.
  std::string address;  // with a prefix length
  std::string gateway;
  std::string address6, gateway6;  // of IPv6, likewise
  std::string dns;

  // The error names the option and the word at fault.
  static Result<NetOption> Parse(const std::string& text);
};

// Opens the TAP and makes the device.
Result<std::unique_ptr<::cube::devices::Net>> MakeNet(const NetOption& option, EventLoop* loop);

// A word for the kernel's command line that tells the agent how to set up the interfaces eth0,
// eth1,
// ... of these options (guestkernel/agent/network.h); empty if there is nothing to set up.
std::string NetKernelArgument(const std::vector<NetOption>& options);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_NET_OPTION_H_
