#include "tests/host_network.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstdlib>

#include "guestkernel/agent/network.h"

namespace cube::testing {

Status EnterNetworkWithTap(const std::string& name, const std::string& address) {
  if (unshare(CLONE_NEWNET) < 0) return ErrnoError("unshare");
  CUBE_ASSIGN(UniqueFd tun, OpenFile("/dev/net/tun", O_RDWR));
  ifreq request = {};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(tun.get(), TUNSETIFF, &request) < 0) return ErrnoError("TUNSETIFF");
  if (ioctl(tun.get(), TUNSETPERSIST, 1) < 0) return ErrnoError("TUNSETPERSIST");
  CUBE_ASSIGN(auto settings, agent::ParseNetwork(name + "," + address + ",,;lo,127.0.0.1/8,,"));
  for (const auto& each : settings) CUBE_TRY(agent::SetUpInterface(each, "/dev/null"));
  return OkStatus();
}

UniqueFd ListenTcp(uint16_t port) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  int on = 1;
  setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      listen(socket.get(), 1) < 0) {
    abort();
  }
  return socket;
}

}  // namespace cube::testing
