#include "net/tap_device.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <cstring>

#include "base/byte_io.h"

namespace cube::net {
namespace {

constexpr int kVirtioHeader = 12;

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

void QuietenLink(const std::string& name) {
  // A host without IPv6 has no such file, and nothing to be said.
  auto file = OpenFile("/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6", O_WRONLY);
  if (!file.ok()) return;
  const uint8_t one[] = {'1'};
  (void)WriteAll(file->get(), one, "disable_ipv6");
}

}  // namespace cube::net
