#ifndef CUBE_GUESTKERNEL_AGENT_NETWORK_H_
#define CUBE_GUESTKERNEL_AGENT_NETWORK_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace cube::agent {

// How one network interface is to be set up. Addresses of IPv4 in network byte order, 0 for none.
struct InterfaceSettings {
  std::string name;
  uint32_t address = 0;
  int prefix = 0;  // bits, 0 to 32
  uint32_t gateway = 0;
  std::string dns;  // as text
};

// Reads "NAME,ADDRESS/PREFIX,GATEWAY,DNS[;NAME,...]"; GATEWAY and DNS may be empty. The kernel
// hands it over from its command line (cube_net=...) as a variable of PID 1's environment.
Result<std::vector<InterfaceSettings>> ParseNetwork(std::string_view text);

// Gives the interface its address, brings it up, and sets the default route and the name server.
// `resolv_conf` is the file to write the latter to.
Status SetUpInterface(const InterfaceSettings& settings, const char* resolv_conf);

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_NETWORK_H_
