#ifndef CUBE_NET_TAP_DEVICE_H_
#define CUBE_NET_TAP_DEVICE_H_

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::net {

// TAP interfaces of the host's kernel (Documentation/networking/tuntap.rst), with a virtio header
// before each frame. They are persistent: they outlive whoever has them open.

// Makes one, or finds the one of that name: a descriptor, as OpenTap() gives. `owner`: the user who
// may open it.
Result<UniqueFd> MakeTap(const std::string& name, unsigned owner);
// A descriptor of it, non-blocking and close-on-exec. An error if another process has it open.
Result<UniqueFd> OpenTap(const std::string& name);
// Has the kernel's network stack know whether somebody has it open: by itself it finds out a while
// after, and until then it drops what comes for one that was opened.
void SettleLink(const std::string& name);
// No IPv6 of the host's on it: no address, no announcements.
void QuietenLink(const std::string& name);
// IPv6 on it, but nothing that is not said to it: no address of its own making, no routers.
Status OpenLinkToIpv6(const std::string& name);

}  // namespace cube::net

#endif  // CUBE_NET_TAP_DEVICE_H_
