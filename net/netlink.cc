#include "net/netlink.h"

#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <span>

namespace cube::net {
namespace {

constexpr size_t kBuffer = 32 * 1024;
constexpr int kReceiveBuffer = 1 << 20;
template <typename Address>
constexpr uint8_t kFamily = sizeof(Address) == sizeof(uint32_t) ? AF_INET : AF_INET6;

// The attributes of a message, after its header of `Header`.
template <typename Header, typename Each>
void EachAttribute(const nlmsghdr* message, const Each& each) {
  size_t left = message->nlmsg_len;
  if (left < NLMSG_LENGTH(sizeof(Header))) return;
  left -= NLMSG_SPACE(sizeof(Header));
  const auto* at = reinterpret_cast<const uint8_t*>(message) + NLMSG_SPACE(sizeof(Header));
  while (left >= sizeof(rtattr)) {
    rtattr attribute;
    memcpy(&attribute, at, sizeof attribute);
    if (attribute.rta_len < sizeof attribute || attribute.rta_len > left) return;
    each(attribute.rta_type & NLA_TYPE_MASK,
         std::span<const uint8_t>(at + RTA_LENGTH(0), attribute.rta_len - RTA_LENGTH(0)));
    size_t step = RTA_ALIGN(attribute.rta_len);
    if (step >= left) return;
    at += step;
    left -= step;
  }
}

template <typename T>
void Take(std::span<const uint8_t> bytes, T* value) {
  if (bytes.size() >= sizeof(T)) memcpy(value, bytes.data(), sizeof(T));
}

Link ReadLink(const nlmsghdr* message) {
  Link link;
  const auto* info = static_cast<const ifinfomsg*>(NLMSG_DATA(message));
  link.index = static_cast<uint32_t>(info->ifi_index);
  link.up = (info->ifi_flags & IFF_UP) != 0;
  link.ethernet = info->ifi_type == ARPHRD_ETHER;
  EachAttribute<ifinfomsg>(message, [&](int type, std::span<const uint8_t> bytes) {
    if (type == IFLA_IFNAME && !bytes.empty()) {
      link.name.assign(reinterpret_cast<const char*>(bytes.data()),
                       strnlen(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    }
    if (type == IFLA_MTU) Take(bytes, &link.mtu);
    if (type == IFLA_ADDRESS) Take(bytes, &link.mac);
  });
  return link;
}

}  // namespace

// A request under construction.
class Netlink::Message {
 public:
  Message(uint16_t type, uint16_t flags) {
    header()->nlmsg_len = NLMSG_LENGTH(0);
    header()->nlmsg_type = type;
    header()->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  }

  nlmsghdr* header() { return reinterpret_cast<nlmsghdr*>(buffer_); }

  template <typename T>
  void Append(const T& value) {
    AppendBytes(&value, sizeof value);
  }
  void Attribute(uint16_t type, const void* data, size_t size) {
    rtattr attribute = {static_cast<uint16_t>(RTA_LENGTH(size)), type};
    Append(attribute);
    AppendBytes(data, size);
  }
  void Attribute(uint16_t type, uint32_t value) { Attribute(type, &value, sizeof value); }
  void Attribute(uint16_t type, const std::string& text) {
    Attribute(type, text.c_str(), text.size() + 1);
  }
  // An attribute of attributes: ends with End() of what this returns.
  size_t Begin(uint16_t type) {
    size_t at = header()->nlmsg_len;
    Attribute(type, nullptr, 0);
    return at;
  }
  void End(size_t at) {
    auto size = static_cast<uint16_t>(header()->nlmsg_len - at);
    memcpy(buffer_ + at, &size, sizeof size);
  }

 private:
  // Names and numbers only, so that all fits; what would not is left out and the kernel says so.
  void AppendBytes(const void* data, size_t size) {
    size_t at = header()->nlmsg_len;
    if (at + NLMSG_ALIGN(size) > sizeof buffer_) return;
    if (size != 0) memcpy(buffer_ + at, data, size);
    header()->nlmsg_len = static_cast<uint32_t>(at + NLMSG_ALIGN(size));
  }

  alignas(NLMSG_ALIGNTO) uint8_t buffer_[1024] = {};
};

Result<Netlink> Netlink::Open() {
  UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!fd.valid()) return ErrnoError("rtnetlink");
  int size = kReceiveBuffer;
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  sockaddr_nl self = {};
  self.nl_family = AF_NETLINK;
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&self), sizeof self) < 0) {
    return ErrnoError("rtnetlink");
  }
  return Netlink(std::move(fd));
}

// Sends a request and hands over every message of its answer.
template <typename Each>
Status Netlink::Ask(Message* message, const char* doing, const Each& each) {
  nlmsghdr* header = message->header();
  header->nlmsg_seq = ++sequence_;
  if (send(fd_.get(), header, header->nlmsg_len, 0) < 0) return ErrnoError("%s", doing);
  std::vector<uint8_t> buffer(kBuffer);
  for (;;) {
    ssize_t n = recv(fd_.get(), buffer.data(), buffer.size(), MSG_TRUNC);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("%s", doing);
    if (static_cast<size_t>(n) > buffer.size()) {
      return Errorf("%s: an answer of %zd bytes", doing, n);
    }
    size_t left = static_cast<size_t>(n);
    bool is_dump = (header->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    for (const auto* one = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(one, left);
         one = NLMSG_NEXT(one, left)) {
      if (one->nlmsg_seq != sequence_) continue;
      if (one->nlmsg_type == NLMSG_DONE) return OkStatus();
      if (one->nlmsg_type == NLMSG_ERROR) {
        errno = -static_cast<const nlmsgerr*>(NLMSG_DATA(one))->error;
        return errno == 0 ? OkStatus() : Status(ErrnoError("%s", doing));
      }
      each(one);
      if (!is_dump && (header->nlmsg_flags & NLM_F_ACK) == 0) return OkStatus();
    }
  }
}

Status Netlink::Do(Message* message, const char* doing) {
  message->header()->nlmsg_flags |= NLM_F_ACK;
  return Ask(message, doing, [](const nlmsghdr*) {});
}

Result<std::vector<Link>> Netlink::Links() {
  Message message(RTM_GETLINK, NLM_F_DUMP);
  message.Append(ifinfomsg{});
  std::vector<Link> links;
  CUBE_TRY(Ask(&message, "the host's interfaces", [&](const nlmsghdr* one) {
    if (one->nlmsg_type == RTM_NEWLINK && one->nlmsg_len >= NLMSG_LENGTH(sizeof(ifinfomsg))) {
      links.push_back(ReadLink(one));
    }
  }));
  return links;
}

Result<std::optional<Link>> Netlink::Find(const std::string& name) {
  if (name.empty() || name.size() >= IFNAMSIZ) {
    return Errorf("\"%.64s\" is not an interface's name of 1 to %d characters", name.c_str(),
                  IFNAMSIZ - 1);
  }
  CUBE_ASSIGN(std::vector<Link> links, Links());
  for (Link& link : links) {
    if (link.name == name) return std::optional(std::move(link));
  }
  return std::optional<Link>();
}

template <typename Address>
Result<std::vector<LinkAddressOf<Address>>> Netlink::AddressesOf() {
  Message message(RTM_GETADDR, NLM_F_DUMP);
  ifaddrmsg wanted = {};
  wanted.ifa_family = kFamily<Address>;
  message.Append(wanted);
  std::vector<LinkAddressOf<Address>> addresses;
  CUBE_TRY(Ask(&message, "the host's addresses", [&](const nlmsghdr* one) {
    if (one->nlmsg_type != RTM_NEWADDR || one->nlmsg_len < NLMSG_LENGTH(sizeof(ifaddrmsg))) return;
    const auto* info = static_cast<const ifaddrmsg*>(NLMSG_DATA(one));
    if (info->ifa_family != kFamily<Address>) return;
    LinkAddressOf<Address> address;
    address.index = info->ifa_index;
    address.prefix = info->ifa_prefixlen;
    uint32_t flags = info->ifa_flags;
    // Of one with a peer the own one is "local".
    std::optional<Address> local;
    EachAttribute<ifaddrmsg>(one, [&](int type, std::span<const uint8_t> bytes) {
      if (type == IFA_ADDRESS) Take(bytes, &address.address);
      if (type == IFA_LOCAL) Take(bytes, &local.emplace());
      if (type == IFA_FLAGS) Take(bytes, &flags);
    });
    if (local) address.address = *local;
    if ((flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0) return;
    address.lasting = (flags & (IFA_F_DEPRECATED | IFA_F_TEMPORARY)) == 0;
    addresses.push_back(address);
  }));
  return addresses;
}
template Result<std::vector<LinkAddress>> Netlink::AddressesOf();
template Result<std::vector<LinkAddress6>> Netlink::AddressesOf();

Result<uint32_t> Netlink::RouteTo(uint32_t address) {
  Message message(RTM_GETROUTE, 0);
  rtmsg wanted = {};
  wanted.rtm_family = AF_INET;
  wanted.rtm_dst_len = 32;
  message.Append(wanted);
  message.Attribute(RTA_DST, address);
  uint32_t index = 0;
  Status found = Ask(&message, "a route", [&](const nlmsghdr* one) {
    EachAttribute<rtmsg>(one, [&](int type, std::span<const uint8_t> bytes) {
      if (type == RTA_OIF) Take(bytes, &index);
    });
  });
  if (!found.ok()) index = 0;
  return index;
}

Status Netlink::AddVeth(const std::string& name, const std::string& peer) {
  Message message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  message.Append(ifinfomsg{});
  message.Attribute(IFLA_IFNAME, name);
  size_t info = message.Begin(IFLA_LINKINFO);
  message.Attribute(IFLA_INFO_KIND, std::string("veth"));
  size_t data = message.Begin(IFLA_INFO_DATA);
  size_t other = message.Begin(VETH_INFO_PEER);
  message.Append(ifinfomsg{});
  message.Attribute(IFLA_IFNAME, peer);
  message.End(other);
  message.End(data);
  message.End(info);
  return Do(&message, ("making the interfaces " + name + " and " + peer).c_str());
}

Status Netlink::Remove(uint32_t index) {
  Message message(RTM_DELLINK, 0);
  ifinfomsg which = {};
  which.ifi_index = static_cast<int>(index);
  message.Append(which);
  return Do(&message, "removing an interface");
}

Status Netlink::SetUp(uint32_t index, bool arp) {
  Message message(RTM_NEWLINK, 0);
  ifinfomsg which = {};
  which.ifi_index = static_cast<int>(index);
  which.ifi_flags = which.ifi_change = IFF_UP;
  if (!arp) which.ifi_change |= IFF_NOARP;
  if (!arp) which.ifi_flags |= IFF_NOARP;
  message.Append(which);
  return Do(&message, "bringing an interface up");
}

Status Netlink::SetMtu(uint32_t index, uint32_t mtu) {
  Message message(RTM_NEWLINK, 0);
  ifinfomsg which = {};
  which.ifi_index = static_cast<int>(index);
  message.Append(which);
  message.Attribute(IFLA_MTU, mtu);
  return Do(&message, "setting an interface's MTU");
}

Status Netlink::SetMac(uint32_t index, const std::array<uint8_t, 6>& mac) {
  Message message(RTM_NEWLINK, 0);
  ifinfomsg which = {};
  which.ifi_index = static_cast<int>(index);
  message.Append(which);
  message.Attribute(IFLA_ADDRESS, mac.data(), mac.size());
  return Do(&message, "setting an interface's address");
}

template <typename Address>
Status Netlink::AddAddress(uint32_t index, const Address& address, uint8_t prefix) {
  Message message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
  ifaddrmsg which = {};
  which.ifa_family = kFamily<Address>;
  which.ifa_prefixlen = prefix;
  which.ifa_flags = which.ifa_family == AF_INET6 ? IFA_F_NODAD : 0;
  which.ifa_index = index;
  message.Append(which);
  message.Attribute(IFA_LOCAL, &address, sizeof address);
  message.Attribute(IFA_ADDRESS, &address, sizeof address);
  return Do(&message, ("giving an interface the address " + AddressText(address)).c_str());
}
template Status Netlink::AddAddress(uint32_t, const uint32_t&, uint8_t);
template Status Netlink::AddAddress(uint32_t, const bpf::address6&, uint8_t);

template <typename Address>
Status Netlink::AddRoute(const std::type_identity_t<Address>& network, uint8_t prefix,
                         const Address& gateway) {
  Message message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
  rtmsg route = {};
  route.rtm_family = kFamily<Address>;
  route.rtm_dst_len = prefix;
  route.rtm_table = RT_TABLE_MAIN;
  route.rtm_protocol = RTPROT_STATIC;
  route.rtm_scope = RT_SCOPE_UNIVERSE;
  route.rtm_type = RTN_UNICAST;
  message.Append(route);
  if (prefix != 0) message.Attribute(RTA_DST, &network, sizeof network);
  message.Attribute(RTA_GATEWAY, &gateway, sizeof gateway);
  return Do(&message, ("a route by " + AddressText(gateway)).c_str());
}
template Status Netlink::AddRoute<uint32_t>(const uint32_t&, uint8_t, const uint32_t&);
template Status Netlink::AddRoute<bpf::address6>(const bpf::address6&, uint8_t,
                                                 const bpf::address6&);

Status Netlink::Move(uint32_t index, int descriptor) {
  Message message(RTM_NEWLINK, 0);
  ifinfomsg which = {};
  which.ifi_index = static_cast<int>(index);
  message.Append(which);
  message.Attribute(IFLA_NET_NS_FD, static_cast<uint32_t>(descriptor));
  return Do(&message, "moving an interface to another namespace");
}

}  // namespace cube::net
