#include "guestkernel/agent/network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/ipv6.h>
#include <net/if.h>
#include <net/route.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "base/unique_fd.h"

namespace cube::agent {
namespace {

// Cuts the part before the next `separator` off `text`.
std::string Cut(std::string_view* text, char separator) {
  size_t end = text->find(separator);
  std::string part(text->substr(0, end));
  text->remove_prefix(end == std::string_view::npos ? text->size() : end + 1);
  return part;
}

bool ParseAddress(const std::string& text, uint32_t* address) {
  return inet_pton(AF_INET, text.c_str(), address) == 1;
}

// An address of the settings' family.
bool ParseAny(const std::string& text, bool ipv6, uint32_t* address, in6_addr* address6) {
  return ipv6 ? inet_pton(AF_INET6, text.c_str(), address6) == 1 : ParseAddress(text, address);
}

void SetAddress(sockaddr* out, uint32_t address) {
  sockaddr_in in = {};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = address;
  memcpy(out, &in, sizeof in);
}

Result<InterfaceSettings> ParseInterface(std::string_view text) {
  const std::string all(text);
  auto wrong = [&all](const char* what) {
    return Errorf("network settings '%s': %s", all.c_str(), what);
  };
  InterfaceSettings settings;
  settings.name = Cut(&text, ',');
  if (settings.name.empty() || settings.name.size() >= IFNAMSIZ) return wrong("no interface");
  std::string address = Cut(&text, ',');
  size_t slash = address.find('/');
  settings.ipv6 = address.find(':') != std::string::npos;
  if (slash == std::string::npos ||
      !ParseAny(address.substr(0, slash), settings.ipv6, &settings.address, &settings.address6)) {
    return wrong("no address with a prefix length");
  }
  char* end = nullptr;
  const char* digits = address.c_str() + slash + 1;
  long prefix = strtol(digits, &end, 10);
  if (end == digits || *end != '\0' || prefix < 0 || prefix > (settings.ipv6 ? 128 : 32))
    return wrong("prefix length");
  settings.prefix = static_cast<int>(prefix);
  std::string gateway = Cut(&text, ',');
  if (!gateway.empty() &&
      !ParseAny(gateway, settings.ipv6, &settings.gateway, &settings.gateway6)) {
    return wrong("gateway");
  }
  settings.dns = Cut(&text, ',');
  uint32_t ignored;
  if (!settings.dns.empty() && !ParseAddress(settings.dns, &ignored)) return wrong("name server");
  if (!text.empty()) return wrong("more than four fields");
  return settings;
}

// What the kernel would otherwise find out by itself takes its time, and is known: nobody else has
// the address, and there are no routers but the gateway.
void SetUnasked(const std::string& name) {
  for (const char* what : {"accept_dad", "accept_ra"}) {
    auto file = OpenFile("/proc/sys/net/ipv6/conf/" + name + "/" + what, O_WRONLY);
    if (file.ok() && write(file->get(), "0", 1) != 1) continue;  // then it takes its time
  }
}

Status SetUpIpv6(const InterfaceSettings& settings) {
  UniqueFd socket(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return ErrnoError("cannot open a socket of IPv6");
  auto fail = [&settings](const char* what) {
    return ErrnoError("cannot set %s of IPv6 of %s", what, settings.name.c_str());
  };
  const int index = static_cast<int>(if_nametoindex(settings.name.c_str()));
  if (index == 0) return fail("the address");
  SetUnasked(settings.name);
  ifreq up = {};
  memcpy(up.ifr_name, settings.name.data(), settings.name.size());
  up.ifr_flags = IFF_UP;
  if (ioctl(socket.get(), SIOCSIFFLAGS, &up) < 0) return fail("the state");
  in6_ifreq address = {settings.address6, static_cast<uint32_t>(settings.prefix), index};
  if (ioctl(socket.get(), SIOCSIFADDR, &address) < 0) return fail("the address");
  if (IN6_IS_ADDR_UNSPECIFIED(&settings.gateway6)) return OkStatus();
  in6_rtmsg route = {};
  route.rtmsg_gateway = settings.gateway6;
  route.rtmsg_flags = RTF_UP | RTF_GATEWAY;
  route.rtmsg_metric = 1024;  // the kernel's own default
  route.rtmsg_ifindex = index;
  if (ioctl(socket.get(), SIOCADDRT, &route) < 0) return fail("the gateway");
  return OkStatus();
}

Status SetUpIpv4(const InterfaceSettings& settings) {
  UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return ErrnoError("cannot open a socket");
  ifreq request = {};
  memcpy(request.ifr_name, settings.name.data(), settings.name.size());
  auto fail = [&settings](const char* what) {
    return ErrnoError("cannot set %s of %s", what, settings.name.c_str());
  };
  SetAddress(&request.ifr_addr, settings.address);
  if (ioctl(socket.get(), SIOCSIFADDR, &request) < 0) return fail("the address");
  SetAddress(&request.ifr_netmask,
             settings.prefix == 0 ? 0 : htonl(0xffffffff << (32 - settings.prefix)));
  if (ioctl(socket.get(), SIOCSIFNETMASK, &request) < 0) return fail("the prefix length");
  request.ifr_flags = IFF_UP;
  if (ioctl(socket.get(), SIOCSIFFLAGS, &request) < 0) return fail("the state");
  if (settings.gateway != 0) {
    rtentry route = {};
    SetAddress(&route.rt_dst, 0);
    SetAddress(&route.rt_genmask, 0);
    SetAddress(&route.rt_gateway, settings.gateway);
    route.rt_flags = RTF_UP | RTF_GATEWAY;
    if (ioctl(socket.get(), SIOCADDRT, &route) < 0) return fail("the gateway");
  }
  return OkStatus();
}

}  // namespace

Result<std::vector<InterfaceSettings>> ParseNetwork(std::string_view text) {
  std::vector<InterfaceSettings> all;
  while (!text.empty()) {
    CUBE_ASSIGN(InterfaceSettings settings, ParseInterface(Cut(&text, ';')));
    all.push_back(std::move(settings));
  }
  return all;
}

Status SetUpInterface(const InterfaceSettings& settings, const char* resolv_conf) {
  CUBE_TRY(settings.ipv6 ? SetUpIpv6(settings) : SetUpIpv4(settings));
  if (settings.dns.empty()) return OkStatus();
  CUBE_ASSIGN(UniqueFd file, OpenFile(resolv_conf, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  std::string line = "nameserver " + settings.dns + "\n";
  if (write(file.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    return ErrnoError("cannot write %s", resolv_conf);
  }
  return OkStatus();
}

}  // namespace cube::agent
