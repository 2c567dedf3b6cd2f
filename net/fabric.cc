#include "net/fabric.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "net/tap_device.h"

namespace cube::net {
namespace {

// Names of interfaces have 15 characters: the prefix, and what tells its own apart.
constexpr size_t kMaxPrefix = 8;
constexpr size_t kMaxRetired = 256;
constexpr uint32_t kAnyAddress = 0x01010101;  // by which the way out of the host is found
constexpr uint8_t kHostMac[6] = {0x02, 0xcb, 0x00, 0x00, 0x00, 0x01};

// The last word about a slot, which the programs read in one piece.
void StorePolicy(bpf::slot* slot, uint64_t policy) {
  std::atomic_ref<decltype(slot->policy)>(slot->policy).store(policy, std::memory_order_release);
}

std::string IdOf(const bpf::slot& slot) {
  return std::string(slot.id, strnlen(slot.id, sizeof slot.id));
}

std::string HostDevice(const FabricOptions& options) { return options.prefix + "-host"; }
std::string HostPeer(const FabricOptions& options) { return options.prefix + "-peer"; }

}  // namespace

Fabric::Fabric(FabricOptions options, Netlink netlink, std::unique_ptr<Programs> programs)
    : options_(std::move(options)),
      netlink_(std::move(netlink)),
      programs_(std::move(programs)),
      rules_(programs_->maps().rules),
      fixed_(programs_->maps().fixed) {}

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
  CUBE_ASSIGN(std::unique_ptr<Programs> programs, Programs::Load(options.pins));
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
  QuietenLink(name);
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
  return netlink_.AddAddress(found->index, settings_.host_address, options_.host_network.prefix);
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
  CUBE_TRY(fixed_.Set(FixedSet::Entries(options_.exceptions, own)));
  return WriteSettings();
}

Status Fabric::WriteSettings() {
  settings_.first_port = options_.first_port;
  settings_.last_port = options_.last_port;
  settings_.resolver_port = htons(options_.resolver_port);
  settings_.peek_port = htons(options_.peek_port);
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

void Fabric::SetProxyPorts(uint16_t resolver_port, uint16_t peek_port) {
  options_.resolver_port = resolver_port;
  options_.peek_port = peek_port;
  (void)WriteSettings();
}

std::string Fabric::TapName(uint32_t slot) const { return options_.prefix + Format("-%u", slot); }

// What a daemon before this one has left: TAPs and their sandboxes stay as they are, but for the
// programs, which are new. Their policies are in force; what they say is told again by
// EnsureNetwork().
Status Fabric::Recover() {
  CUBE_ASSIGN(std::vector<Link> links, netlink_.Links());
  std::map<std::string, uint32_t> indices;
  for (const Link& link : links) indices[link.name] = link.index;
  std::set<uint32_t> generations;
  for (uint32_t slot = 1; slot < CUBE_MAX_SLOTS; ++slot) {
    bpf::slot& state = At(slot);
    if (state.ifindex == 0) continue;
    generation_ = std::max({generation_, static_cast<uint32_t>(state.policy), state.epoch});
    made_ = std::max(made_, slot);
    auto found = indices.find(TapName(slot));
    std::string id = IdOf(state);
    if (found == indices.end() || found->second != state.ifindex) {
      // The host was started anew, or somebody has removed it.
      bpf_map_delete_elem(programs_->maps().taps, &state.ifindex);
      Clear(slot);
      CUBE_TRY(MakeSlot(slot));
    } else {
      CUBE_TRY(programs_->AttachSandbox(state.ifindex));
      if (!id.empty()) {
        sandboxes_[id] = slot;
        if (state.policy != 0) generations.insert(static_cast<uint32_t>(state.policy));
        continue;
      }
    }
    free_.insert(slot);
  }
  rules_.RemoveOthers(generations);
  return OkStatus();
}

// Flows are known by the epoch, so that those of a sandbox are over with it.
void Fabric::Clear(uint32_t slot) {
  bpf::slot& state = At(slot);
  StorePolicy(&state, 0);
  std::atomic_ref<decltype(state.epoch)>(state.epoch).store(NextGeneration());
  memset(state.id, 0, sizeof state.id);
  state.flows = 0;
  state.bytes_per_second = state.packets_per_second = 0;
}

uint32_t Fabric::NextGeneration() {
  if (++generation_ == 0) ++generation_;
  return generation_;
}

// The program is there before the interface is up, and the slot before the program finds it.
Status Fabric::MakeSlot(uint32_t slot) {
  const std::string name = TapName(slot);
  CUBE_ASSIGN(UniqueFd fd, MakeTap(name, options_.owner));
  CUBE_ASSIGN(auto link, netlink_.Find(name));
  if (!link) return Errorf("the interface %s is gone", name.c_str());
  QuietenLink(name);
  CUBE_TRY(programs_->AttachSandbox(link->index));
  bpf::slot& state = At(slot);
  StorePolicy(&state, 0);
  state.ifindex = link->index;
  state.host_address = htonl(options_.host_network.address + slot + 1);
  state.max_flows = options_.max_flows;
  state.epoch = NextGeneration();
  memset(state.id, 0, sizeof state.id);
  if (bpf_map_update_elem(programs_->maps().taps, &link->index, &slot, BPF_ANY) != 0) {
    return ErrnoError("the TAP %s", name.c_str());
  }
  if (link->mtu != kGuestMtu) CUBE_TRY(netlink_.SetMtu(link->index, kGuestMtu));
  CUBE_TRY(netlink_.SetUp(link->index));
  open_[slot] = std::move(fd);
  return OkStatus();
}

Status Fabric::Fill(uint32_t count) {
  for (uint32_t slot : free_) {
    if (open_.size() >= count) break;
    if (open_.contains(slot)) continue;
    // Some may still be in the hands of a process that is about to end.
    auto fd = OpenTap(TapName(slot));
    if (fd.ok()) open_[slot] = std::move(*fd);
  }
  while (free_.size() < count) {
    if (made_ + 1 >= CUBE_MAX_SLOTS) {
      return Errorf("%u TAPs are all that there can be", made_);
    }
    CUBE_TRY(MakeSlot(made_ + 1));
    free_.insert(++made_);
  }
  return OkStatus();
}

Result<uint32_t> Fabric::FreeSlot() {
  if (free_.empty()) CUBE_TRY(Fill(1));
  return *free_.begin();
}

Result<LentTap> Fabric::LendSlot(uint32_t slot) {
  LentTap lent = {slot, TapName(slot), UniqueFd()};
  auto found = open_.find(slot);
  if (found != open_.end()) {
    lent.fd = std::move(found->second);
    open_.erase(found);
  } else {
    CUBE_ASSIGN(lent.fd, OpenTap(lent.name));
  }
  free_.erase(slot);
  lent_.insert(slot);
  return lent;
}

Result<LentTap> Fabric::Lend() {
  std::vector<uint32_t> candidates;
  for (const auto& [slot, fd] : open_) candidates.push_back(slot);
  candidates.insert(candidates.end(), free_.begin(), free_.end());
  for (uint32_t slot : candidates) {
    auto lent = LendSlot(slot);
    if (lent.ok()) return lent;
  }
  CUBE_TRY(Fill(static_cast<uint32_t>(free_.size()) + 1));
  return LendSlot(made_);
}

void Fabric::GiveBack(uint32_t slot) {
  if (lent_.erase(slot) != 0) free_.insert(slot);
}

Status Fabric::Assign(uint32_t slot, const std::string& id) {
  if (id.empty() || id.size() >= CUBE_ID_SIZE) {
    return Errorf("\"%.64s\" is not an id of 1 to %d characters", id.c_str(), CUBE_ID_SIZE - 1);
  }
  auto known = sandboxes_.find(id);
  if (known != sandboxes_.end()) {
    if (known->second == slot) return OkStatus();
    return Errorf("sandbox %s has a network already", id.c_str());
  }
  if (lent_.erase(slot) == 0 && free_.erase(slot) == 0) {
    return Errorf("the TAP of slot %u is not free for sandbox %s", slot, id.c_str());
  }
  open_.erase(slot);
  bpf::slot& state = At(slot);
  std::atomic_ref<decltype(state.epoch)>(state.epoch).store(NextGeneration());
  // Neither counts nor debts of the one before.
  std::vector<bpf::slot_counters> none(static_cast<size_t>(libbpf_num_possible_cpus()));
  bpf_map_update_elem(programs_->maps().counters, &slot, none.data(), BPF_ANY);
  const uint8_t full[sizeof(uint64_t) + sizeof(bpf::meter_state)] = {};
  bpf_map_update_elem(programs_->maps().meters, &slot, full, BPF_ANY);
  memcpy(state.id, id.c_str(), id.size() + 1);
  sandboxes_[id] = slot;
  return OkStatus();
}

Status Fabric::EnsureNetwork(const std::string& id, const Policy& policy) {
  auto known = sandboxes_.find(id);
  if (known == sandboxes_.end()) {
    CUBE_ASSIGN(uint32_t slot, FreeSlot());
    CUBE_TRY(Assign(slot, id));
    known = sandboxes_.find(id);
  }
  uint32_t slot = known->second;
  bpf::slot& state = At(slot);
  auto before = policies_.find(slot);
  if (before != policies_.end() && before->second.policy == policy && state.policy != 0) {
    return OkStatus();
  }
  InForce next;
  next.policy = policy;
  next.generation = NextGeneration();
  CUBE_ASSIGN(next.rules, CompilePolicy(policy));
  CUBE_TRY(rules_.Add(next.generation, next.rules));
  state.bytes_per_second = policy.bytes_per_second;
  state.packets_per_second = policy.packets_per_second;
  auto former = static_cast<uint32_t>(state.policy);
  StorePolicy(&state, PolicyWord(policy, next.generation));
  if (before != policies_.end()) {
    Retire(before->second.generation, std::move(before->second.rules));
  } else if (former != 0) {
    // Of a daemon before this one: its rules are known by nothing but their generation.
    std::set<uint32_t> generations;
    for (const auto& [each, number] : sandboxes_) {
      generations.insert(static_cast<uint32_t>(At(number).policy));
    }
    rules_.RemoveOthers(generations);
  }
  policies_[slot] = std::move(next);
  return OkStatus();
}

void Fabric::Retire(uint32_t generation, std::vector<CompiledRule> rules) {
  if (rules.empty()) return;
  retired_.emplace_back(generation, std::move(rules));
  if (retired_.size() > kMaxRetired) Tidy();
}

void Fabric::Tidy() {
  for (const auto& [generation, rules] : retired_) rules_.Remove(generation, rules);
  retired_.clear();
}

void Fabric::ReleaseNetwork(const std::string& id) {
  auto known = sandboxes_.find(id);
  if (known == sandboxes_.end()) return;
  uint32_t slot = known->second;
  for (const PortMapping& mapping : Ports(id)) {
    (void)UnmapPort(mapping.protocol, mapping.host_port);
  }
  auto former = policies_.find(slot);
  Clear(slot);
  if (former != policies_.end()) {
    Retire(former->second.generation, std::move(former->second.rules));
    policies_.erase(former);
  }
  sandboxes_.erase(known);
  free_.insert(slot);
}

std::optional<uint32_t> Fabric::SlotOf(const std::string& id) const {
  auto found = sandboxes_.find(id);
  return found == sandboxes_.end() ? std::nullopt : std::optional(found->second);
}

const Policy* Fabric::PolicyOf(uint32_t slot) const {
  auto found = policies_.find(slot);
  return found == policies_.end() ? nullptr : &found->second.policy;
}

uint32_t Fabric::SlotByAddress(uint32_t host_address) const {
  uint32_t number = (ntohl(host_address) & ~options_.host_network.mask()) - 1;
  bool known = number >= 1 && number <= made_ &&
               programs_->slots()[number].host_address == host_address &&
               programs_->slots()[number].id[0] != '\0';
  return known ? number : 0;
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
