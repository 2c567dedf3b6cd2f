#include "net/fabric.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/monotonic.h"
#include "net/tap_device.h"

namespace cube::net {
namespace {

constexpr size_t kMaxRetired = 256;
// Some hundred microseconds, of policies of 100 rules.
constexpr int kTidiedAtOnce = 16;
// A processor that has read a slot's policy may be judging by it, be it that it is one of a machine
// and has been stopped.
constexpr uint64_t kJudgingNs = 100'000'000;

// The last word about a slot, which the programs read in one piece.
void StorePolicy(bpf::slot* slot, uint64_t policy) {
  std::atomic_ref<decltype(slot->policy)>(slot->policy).store(policy, std::memory_order_release);
}

std::string IdOf(const bpf::slot& slot) {
  return std::string(slot.id, strnlen(slot.id, sizeof slot.id));
}

}  // namespace

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
      programs_->ForgetTap(state.ifindex);
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
  RemoveOtherRules(generations);
  return OkStatus();
}

void Fabric::RemoveOtherRules(const std::set<uint32_t>& generations) {
  rules_.RemoveOthers(generations);
  if (programs_->ipv6()) rules6_.RemoveOthers(generations);
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
  CUBE_TRY(programs_->SetTap(link->index, slot));
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
    SettleLink(lent.name);
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
  CUBE_ASSIGN(next.rules.v4, CompilePolicy(policy));
  CUBE_TRY(rules_.Add(next.generation, next.rules.v4));
  if (programs_->ipv6()) {
    CUBE_ASSIGN(next.rules.v6, CompilePolicy6(policy));
    Status added = rules6_.Add(next.generation, next.rules.v6);
    if (!added.ok()) {
      rules_.Remove(next.generation, next.rules.v4);
      return added;
    }
  }
  state.bytes_per_second = policy.bytes_per_second;
  state.packets_per_second = policy.packets_per_second;
  auto former = static_cast<uint32_t>(state.policy);
  StorePolicy(&state, PolicyWord(policy, next.generation, programs_->ipv6()));
  if (before != policies_.end()) {
    Retire(before->second.generation, std::move(before->second.rules));
  } else if (former != 0) {
    // Of a daemon before this one: its rules are known by nothing but their generation.
    std::set<uint32_t> generations;
    for (const auto& [each, number] : sandboxes_) {
      generations.insert(static_cast<uint32_t>(At(number).policy));
    }
    RemoveOtherRules(generations);
  }
  policies_[slot] = std::move(next);
  return OkStatus();
}

void Fabric::Retire(uint32_t generation, Rules rules) {
  if (rules.v4.empty() && rules.v6.empty()) return;
  retired_.push_back({MonotonicNow(), generation, std::move(rules)});
  if (retired_.size() > kMaxRetired) RemoveOldest();
}

void Fabric::RemoveOldest() {
  const auto& [since, generation, rules] = retired_.front();
  rules_.Remove(generation, rules.v4);
  if (programs_->ipv6()) rules6_.Remove(generation, rules.v6);
  retired_.pop_front();
}

bool Fabric::Tidy() {
  uint64_t before = MonotonicNow() - kJudgingNs;
  for (int i = 0; i < kTidiedAtOnce && !retired_.empty(); ++i) {
    if (retired_.front().since > before) break;
    RemoveOldest();
  }
  return retired_.empty();
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

uint32_t Fabric::SlotByAddress6(const bpf::address6& host_address) const {
  Uint128 place = FromWire(host_address) - kHostAddress6;
  bool known = place >= 1 && place <= made_ &&
               programs_->slots()[static_cast<uint32_t>(place)].id[0] != '\0';
  return known ? static_cast<uint32_t>(place) : 0;
}

}  // namespace cube::net
