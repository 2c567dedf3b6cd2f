#include "net/tap_device.h"

#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

#include "base/byte_io.h"

namespace cube::net {
namespace {

constexpr int kVirtioHeader = 12;

Status SetIpv6(const std::string& name, const char* what, uint8_t digit) {
  const std::string path = "/proc/sys/net/ipv6/conf/" + name + "/" + what;
  CUBE_ASSIGN(UniqueFd file, OpenFile(path, O_WRONLY));
  return WriteAll(file.get(), {&digit, 1}, path.c_str());
}

}  // namespace

Result<UniqueFd> OpenTap(const std::string& name) {
  if (name.empty() || name.size() >= IFNAMSIZ) {
    return Errorf("\"%.64s\" is not an interface's name of 1 to %d characters", name.c_str(),
                  IFNAMSIZ - 1);
  }
  CUBE_ASSIGN(UniqueFd fd, OpenFile("/dev/net/tun", O_RDWR | O_NONBLOCK));
  ifreq request = {};
  memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(fd.get(), TUNSETIFF, &request) < 0) return ErrnoError("TAP %s", name.c_str());
  int header = kVirtioHeader;
  if (ioctl(fd.get(), TUNSETVNETHDRSZ, &header) < 0) return ErrnoError("TAP %s", name.c_str());
  return fd;
}

Result<UniqueFd> MakeTap(const std::string& name, unsigned owner) {
  CUBE_ASSIGN(UniqueFd fd, OpenTap(name));
  if (ioctl(fd.get(), TUNSETOWNER, static_cast<unsigned long>(owner)) < 0 ||
      ioctl(fd.get(), TUNSETPERSIST, 1ul) < 0) {
    return ErrnoError("TAP %s", name.c_str());
  }
  return fd;
}

void SettleLink(const std::string& name) {
  UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ethtool_value value = {ETHTOOL_GLINK, 0};
  ifreq request = {};
  if (!socket.valid() || name.size() >= IFNAMSIZ) return;
  memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_data = &value;
  // The answer, which it has to be up to date for, is not needed; nor is it worse without.
  (void)ioctl(socket.get(), SIOCETHTOOL, &request);
}

void QuietenLink(const std::string& name) {
  // A host without IPv6 has no such file, and nothing to be said.
  (void)SetIpv6(name, "disable_ipv6", '1');
}

Status OpenLinkToIpv6(const std::string& name) {
  // No routers are heard or asked, and it gives itself no address.
  CUBE_TRY(SetIpv6(name, "accept_ra", '0'));
  CUBE_TRY(SetIpv6(name, "addr_gen_mode", '1'));
  return SetIpv6(name, "disable_ipv6", '0');
}

}  // namespace cube::net
