#ifndef CUBE_GUESTKERNEL_AGENT_NETWORK_H_
#define CUBE_GUESTKERNEL_AGENT_NETWORK_H_

#include <netinet/in.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace cube::agent {

// How one network interface is to be set up, for one family. Addresses in network byte order, 0 for
// none.
struct InterfaceSettings {
  std::string name;
  bool ipv6 = false;
  uint32_t address = 0;
  int prefix = 0;  // bits, 0 to 32 or 128
  uint32_t gateway = 0;
  in6_addr address6 = {};  // these if `ipv6`
  in6_addr gateway6 = {};
  std::string dns;  // as text
};

// Reads "NAME,ADDRESS/PREFIX,GATEWAY,DNS[;NAME,...]"; GATEWAY and DNS may be empty, addresses are
// of IPv4 or both of IPv6. The kernel hands it over from its command line (cube_net=...) as a
// variable of PID 1's environment.
Result<std::vector<InterfaceSettings>> ParseNetwork(std::string_view text);

// Gives the interface its address, brings it up, and sets the default route and the name server.
// `resolv_conf` is the file to write the latter to.
Status SetUpInterface(const InterfaceSettings& settings, const char* resolv_conf);

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_NETWORK_H_
