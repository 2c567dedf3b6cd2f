#include "devices/net/tap.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <cstring>
#include <utility>

#include "devices/net/spec.h"

namespace cube::devices::net {
namespace {

// Of Linux 6.2, newer than the headers.
constexpr unsigned kTunUso4 = 0x20;
constexpr unsigned kTunUso6 = 0x40;

unsigned TunOffloads(uint64_t features) {
  const struct {
    uint64_t feature;
    unsigned flag;
  } kOffloads[] = {
      {kFeatureGuestTso4, TUN_F_TSO4},   {kFeatureGuestTso6, TUN_F_TSO6},
      {kFeatureGuestEcn, TUN_F_TSO_ECN}, {kFeatureGuestUso4, kTunUso4},
      {kFeatureGuestUso6, kTunUso6},
  };
  // Without checksums none of the rest is possible (5.1.3.1), and TUN refuses it.
  if ((features & kFeatureGuestCsum) == 0) return 0;
  unsigned flags = TUN_F_CSUM;
  for (auto [feature, flag] : kOffloads) {
    if ((features & feature) != 0) flags |= flag;
  }
  // TUN has segments of UDP for both versions of IP or for neither.
  if ((flags & (kTunUso4 | kTunUso6)) != (kTunUso4 | kTunUso6)) flags &= ~(kTunUso4 | kTunUso6);
  return flags;
}

}  // namespace

Result<std::unique_ptr<Tap>> Tap::Open(const std::string& name) {
  if (name.empty() || name.size() >= IFNAMSIZ || name.find_first_of("/ %:") != std::string::npos) {
    return Errorf("'%s' is not an interface's name of 1 to %d characters", name.c_str(),
                  IFNAMSIZ - 1);
  }
  CUBE_ASSIGN(UniqueFd fd, OpenFile("/dev/net/tun", O_RDWR | O_NONBLOCK));
  ifreq request = {};
  memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (ioctl(fd.get(), TUNSETIFF, &request) < 0) return ErrnoError("TAP %s", name.c_str());
  std::unique_ptr<Tap> tap(new Tap(std::move(fd), name));
  CUBE_TRY(tap->SetUp());
  return tap;
}

Result<std::unique_ptr<Tap>> Tap::Adopt(UniqueFd fd) {
  int number = fd.get();
  ifreq request = {};
  if (ioctl(number, TUNGETIFF, &request) < 0) return ErrnoError("descriptor %d is no TAP", number);
  constexpr int kWanted = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if ((request.ifr_flags & kWanted) != kWanted) {
    return Errorf(
        "descriptor %d is a TUN/TAP with flags %#x, which lack some of %#x (IFF_TAP, "
        "IFF_NO_PI, IFF_VNET_HDR)",
        number, static_cast<unsigned>(static_cast<uint16_t>(request.ifr_flags)), kWanted);
  }
  int flags = fcntl(number, F_GETFL);
  if (flags < 0 || fcntl(number, F_SETFL, flags | O_NONBLOCK) < 0) {
    return ErrnoError("descriptor %d", number);
  }
  request.ifr_name[IFNAMSIZ - 1] = '\0';
  std::unique_ptr<Tap> tap(new Tap(std::move(fd), request.ifr_name));
  CUBE_TRY(tap->SetUp());
  return tap;
}

Status Tap::SetUp() {
  int header = sizeof(Header);
  if (ioctl(fd_.get(), TUNSETVNETHDRSZ, &header) < 0) {
    return ErrnoError("TAP %s: a header of %d bytes", name_.c_str(), header);
  }
  int buffer = kSendBuffer;
  if (ioctl(fd_.get(), TUNSETSNDBUF, &buffer) < 0) {
    return ErrnoError("TAP %s: a send buffer of %d bytes", name_.c_str(), buffer);
  }
  // What the kernel can do is found by asking for it.
  for (uint64_t offloads : {kTcpOffloads | kUdpOffloads, kTcpOffloads}) {
    if (ioctl(fd_.get(), TUNSETOFFLOAD, TunOffloads(offloads)) < 0) continue;
    offloads_ = offloads;
    break;
  }
  return SetOffloads(0);
}

Status Tap::SetOffloads(uint64_t features) {
  unsigned flags = TunOffloads(features);
  if (ioctl(fd_.get(), TUNSETOFFLOAD, flags) < 0) {
    return ErrnoError("TAP %s does not take the offloads %#x", name_.c_str(), flags);
  }
  return OkStatus();
}

}  // namespace cube::devices::net
