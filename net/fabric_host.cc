// What a fabric has of its host: the uplink, the device by which the host and guests meet, and the
// host's addresses.
#include <arpa/inet.h>
#include <bpf/bpf.h>

#include <algorithm>

#include "net/fabric.h"
#include "net/tap_device.h"

namespace cube::net {
namespace {

// Names of interfaces have 15 characters: the prefix, and what tells its own apart.
constexpr size_t kMaxPrefix = 8;
constexpr uint32_t kAnyAddress = 0x01010101;  // by which the way out of the host is found
constexpr uint8_t kHostMac[6] = {0x02, 0xcb, 0x00, 0x00, 0x00, 0x01};
constexpr uint8_t kHostPrefix6 = 64;

std::string HostDevice(const FabricOptions& options) { return options.prefix + "-host"; }
std::string HostPeer(const FabricOptions& options) { return options.prefix + "-peer"; }

}  // namespace

Fabric::Fabric(FabricOptions options, Netlink netlink, std::unique_ptr<Programs> programs)
    : options_(std::move(options)),
      netlink_(std::move(netlink)),
      programs_(std::move(programs)),
      rules_(programs_->maps().rules),
      rules6_(programs_->maps6().rules),
      fixed_(programs_->maps().fixed),
      fixed6_(programs_->maps6().fixed) {}

Result<std::unique_ptr<Fabric>> Fabric::Open(FabricOptions options) {
  if (options.prefix.empty() || options.prefix.size() > kMaxPrefix) {
    return Errorf("\"%.32s\" is not a prefix of 1 to %zu characters for interfaces",
                  options.prefix.c_str(), kMaxPrefix);
  }
  if (options.host_network.prefix > 19 || options.host_network.prefix < 8) {
    return Errorf("%s is not a network of prefix 8 to 19 for the host's addresses of sandboxes",
                  NetworkText(options.host_network).c_str());
  }
  if (options.first_port == 0 || options.first_port > options.last_port) {
    return Errorf("ports %u to %u are no range to send from", options.first_port,
                  options.last_port);
  }
  CUBE_ASSIGN(Netlink netlink, Netlink::Open());
  CUBE_ASSIGN(std::unique_ptr<Programs> programs, Programs::Load(options.pins, options.ipv6));
  std::unique_ptr<Fabric> fabric(
      new Fabric(std::move(options), std::move(netlink), std::move(programs)));
  CUBE_TRY(fabric->FindUplink());
  CUBE_TRY(fabric->SetUpHost());
  CUBE_TRY(fabric->RefreshAddresses());
  // Without settings its programs would take the host's own traffic for something else.
  CUBE_TRY(fabric->programs_->AttachUplink(fabric->settings_.uplink));
  CUBE_TRY(fabric->Recover());
  return fabric;
}

// The device by which the host and guests meet. Nothing ever comes out of its peer.
Status Fabric::SetUpHost() {
  const std::string name = HostDevice(options_), peer = HostPeer(options_);
  CUBE_ASSIGN(auto found, netlink_.Find(name));
  if (!found) {
    CUBE_TRY(netlink_.AddVeth(name, peer));
    CUBE_ASSIGN(found, netlink_.Find(name));
  }
  CUBE_ASSIGN(auto other, netlink_.Find(peer));
  if (!found || !other) return Errorf("the interface %s is gone", name.c_str());
  if (!options_.ipv6) QuietenLink(name);
  QuietenLink(peer);
  CUBE_TRY(programs_->AttachHost(found->index));
  std::copy(kHostMac, kHostMac + 6, settings_.host_mac);
  std::array<uint8_t, 6> mac;
  std::copy(kHostMac, kHostMac + 6, mac.begin());
  if (found->mac != mac) CUBE_TRY(netlink_.SetMac(found->index, mac));
  CUBE_TRY(netlink_.SetUp(other->index, false));
  CUBE_TRY(netlink_.SetUp(found->index, false));
  settings_.host = found->index;
  settings_.host_network = htonl(options_.host_network.address);
  settings_.host_mask = htonl(options_.host_network.mask());
  settings_.host_address = htonl(options_.host_network.address + 1);
  if (options_.ipv6) CUBE_TRY(SetUpHostIpv6(name));
  return netlink_.AddAddress(found->index, settings_.host_address, options_.host_network.prefix);
}

// A host whose kernel has no IPv6 has none to give; that is no reason to have no network at all.
Status Fabric::SetUpHostIpv6(const std::string& device) {
  Status open = OpenLinkToIpv6(device);
  if (!open.ok()) {
    host_lacks_ipv6_ = open.error().message();
    return OkStatus();
  }
  return netlink_.AddAddress(settings_.host, ToWire(kHostAddress6), kHostPrefix6);
}

Status Fabric::FindUplink() {
  std::optional<Link> uplink;
  if (options_.uplink.empty()) {
    CUBE_ASSIGN(uint32_t index, netlink_.RouteTo(kAnyAddress));
    CUBE_ASSIGN(std::vector<Link> links, netlink_.Links());
    for (Link& link : links) {
      if (link.index == index) uplink = std::move(link);
    }
    if (!uplink) return Errorf("network.uplink: this host has no default route to take");
    options_.uplink = uplink->name;
  } else {
    CUBE_ASSIGN(uplink, netlink_.Find(options_.uplink));
  }
  if (!uplink || !uplink->ethernet) {
    return Errorf("network.uplink: there is no Ethernet interface \"%.32s\"",
                  options_.uplink.c_str());
  }
  settings_.uplink = uplink->index;
  return OkStatus();
}

Status Fabric::RefreshAddresses() {
  CUBE_ASSIGN(std::vector<LinkAddress> addresses, netlink_.Addresses());
  std::vector<Network> own = {options_.host_network, {0xa9fe0014, 30}};
  CUBE_ASSIGN(auto uplink, netlink_.Find(options_.uplink));
  if (uplink) settings_.mtu = uplink->mtu;
  std::vector<uint32_t> sources;
  for (const Network& network : options_.snat) sources.push_back(htonl(network.address));
  for (const LinkAddress& each : addresses) {
    own.push_back({ntohl(each.address), 32});
    if (each.index == settings_.uplink && options_.snat.empty() && sources.empty()) {
      sources.push_back(each.address);
    }
  }
  for (const Network& network : options_.snat) own.push_back(network);
  if (sources.size() > CUBE_MAX_SNAT) {
    return Errorf("network.addresses: %zu are more than %d", sources.size(), CUBE_MAX_SNAT);
  }
  settings_.snat_count = static_cast<uint32_t>(sources.size());
  std::fill(std::begin(settings_.snat), std::end(settings_.snat), 0);
  std::ranges::copy(sources, settings_.snat);
  CUBE_TRY(fixed_.Set(FixedSet::Make(options_.exceptions, own)));
  if (options_.ipv6) CUBE_TRY(RefreshAddresses6());
  return WriteSettings();
}

// What guests send from is kept for as long as the uplink has it.
Status Fabric::RefreshAddresses6() {
  CUBE_ASSIGN(std::vector<LinkAddress6> addresses, netlink_.Addresses6());
  std::vector<Network6> own = {kInside6};
  std::optional<bpf::address6> first;
  bool is_kept = false;
  for (const LinkAddress6& each : addresses) {
    Network6 one = {FromWire(each.address)};
    own.push_back(one);
    if (each.index != settings_.uplink || !each.lasting || !kGlobal6.Contains(one)) continue;
    if (!first) first = each.address;
    is_kept |= each.address == settings_.snat6;
  }
  if (!is_kept || !host_lacks_ipv6_.empty()) settings_.snat6 = {};
  if (!is_kept && first && host_lacks_ipv6_.empty()) settings_.snat6 = *first;
  return fixed6_.Set(FixedSet6::Make(options_.exceptions6, own));
}

std::string Fabric::WhyNoIpv6() const {
  if (!options_.ipv6) return "network.ipv6 is false";
  if (!host_lacks_ipv6_.empty()) return host_lacks_ipv6_;
  if (settings_.snat6 != bpf::address6{}) return "";
  return "the uplink " + options_.uplink + " has no global address of IPv6";
}

Status Fabric::WriteSettings() {
  settings_.first_port = options_.first_port;
  settings_.last_port = options_.last_port;
  settings_.resolver_port = htons(options_.resolver_port);
  settings_.peek_port = htons(options_.peek_port);
  settings_.peek_port6 = htons(options_.peek_port6);
  uint32_t zero = 0;
  if (bpf_map_update_elem(programs_->maps().settings, &zero, &settings_, BPF_ANY) == 0) {
    return OkStatus();
  }
  return ErrnoError("the network's settings");
}

void Fabric::SetTrace(uint32_t reasons) {
  settings_.trace = reasons;
  (void)WriteSettings();
}

void Fabric::SetProxyPorts(uint16_t resolver_port, uint16_t peek_port, uint16_t peek_port6) {
  options_.resolver_port = resolver_port;
  options_.peek_port = peek_port;
  options_.peek_port6 = peek_port6;
  (void)WriteSettings();
}

void Fabric::Remove(const FabricOptions& options) {
  auto netlink = Netlink::Open();
  auto links = netlink.ok() ? netlink->Links() : Result<std::vector<Link>>(netlink.error());
  if (links.ok()) {
    for (const Link& link : *links) {
      if (link.name == options.uplink) Programs::DetachUplink(link.index);
      if (!link.name.starts_with(options.prefix + "-")) continue;
      std::string rest = link.name.substr(options.prefix.size() + 1);
      bool is_tap = !rest.empty() && rest.find_first_not_of("0123456789") == std::string::npos;
      // The peer goes with it.
      if (is_tap || rest == "host") (void)netlink->Remove(link.index);
    }
  }
  if (!options.pins.empty()) Programs::Unpin(options.pins);
}

}  // namespace cube::net
