#include "net/reaper.h"

#include <bpf/bpf.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <numeric>

#include "base/monotonic.h"

namespace cube::net {
namespace {

constexpr uint32_t kBatch = 4096;

}  // namespace

Reaper::Reaper(Programs* programs) : programs_(programs), counts_(CUBE_MAX_SLOTS) {}

template <typename Key, typename Value, typename Each>
bool Reaper::Read(int map, const Each& each) {
  std::vector<Key> keys(kBatch);
  std::vector<Value> values(kBatch);
  uint32_t count = kBatch, next = 0;
  LIBBPF_OPTS(bpf_map_batch_opts, options);
  int failed = bpf_map_lookup_batch(map, begun_ ? &cursor_ : nullptr, &next, keys.data(),
                                    values.data(), &count, &options);
  bool is_last = failed != 0;
  if (failed != 0 && errno != ENOENT) count = 0;
  for (uint32_t i = 0; i < count; ++i) each(keys[i], values[i]);
  cursor_ = next;
  begun_ = !is_last;
  return !is_last;
}

template <typename Key, typename Flow>
bool Reaper::IsAlive(const Key& key, const Flow& flow, uint64_t now) const {
  if (key.slot >= CUBE_MAX_SLOTS || flow.epoch != programs_->slots()[key.slot].epoch) return false;
  // One that was seen since `now` was read is later than that.
  return flow.seen > now || now - flow.seen < bpf::flow_timeout(flow.state);
}

template <typename Key, typename Flow, typename Name>
bool Reaper::StepFlows(int flows, int names, uint64_t now) {
  return Read<Key, Flow>(flows, [&](const Key& key, const Flow& flow) {
    if (IsAlive(key, flow, now)) {
      ++counts_[key.slot];
      return;
    }
    // It may have begun anew since it was read.
    Flow present;
    if (bpf_map_lookup_elem(flows, &key, &present) != 0 || present.seen != flow.seen) return;
    Name name = {flow.target, flow.source, flow.target_port, flow.source_port, key.protocol, {}};
    // The name may be another's by now.
    Key owner;
    if (bpf_map_lookup_elem(names, &name, &owner) == 0 && memcmp(&owner, &key, sizeof key) == 0) {
      bpf_map_delete_elem(names, &name);
    }
    bpf_map_delete_elem(flows, &key);
    ++statistics_.reaped;
  });
}

template <typename Key, typename Flow, typename Name>
bool Reaper::StepNames(int flows, int names) {
  return Read<Name, Key>(names, [&](const Name& name, const Key& key) {
    Flow flow;
    bool leads = bpf_map_lookup_elem(flows, &key, &flow) == 0 &&
                 flow.source_port == name.source_port && flow.source == name.source;
    if (!leads) bpf_map_delete_elem(names, &name);
  });
}

template <typename Key>
void Reaper::SweepOpened(int map, uint64_t now) {
  const bpf::slot* slots = programs_->slots();
  do {
  } while (Read<Key, bpf::opened>(map, [&](const Key& key, const bpf::opened& value) {
    bool is_known = key.slot < CUBE_MAX_SLOTS && slots[key.slot].epoch == value.epoch;
    if (!is_known || value.until < now) bpf_map_delete_elem(map, &key);
  }));
}

// Tables that are small.
void Reaper::SweepRest(uint64_t now) {
  const Programs::Maps& maps = programs_->maps();
  const bpf::slot* slots = programs_->slots();
  SweepOpened<bpf::v4::opened_key>(maps.opened, now);
  if (programs_->ipv6()) SweepOpened<bpf::v6::opened_key>(programs_->maps6().opened, now);
  do {
  } while (
      Read<bpf::port_key, bpf::port_target>(maps.ports, [&](const auto& key, const auto& value) {
        bool is_known = value.slot < CUBE_MAX_SLOTS && slots[value.slot].epoch == value.epoch;
        if (!is_known) bpf_map_delete_elem(maps.ports, &key);
      }));
}

// How many flows each sandbox has, by which the programs know when it has too many.
void Reaper::PublishCounts() {
  for (uint32_t slot = 0; slot < CUBE_MAX_SLOTS; ++slot) {
    bpf::slot& state = programs_->slots()[slot];
    if (state.ifindex == 0) continue;
    std::atomic_ref<decltype(state.flows)>(state.flows).store(counts_[slot]);
  }
  statistics_.flows = std::accumulate(counts_.begin(), counts_.end(), uint64_t{0});
  counts_.assign(CUBE_MAX_SLOTS, 0);
}

bool Reaper::Step() {
  uint64_t now = MonotonicNow();
  const Programs::Maps& v4 = programs_->maps();
  const Programs::Maps6& v6 = programs_->maps6();
  bool has_ipv6 = programs_->ipv6();
  switch (stage_) {
    case Stage::kFlows:
      if (StepFlows<bpf::v4::flow_key, bpf::v4::flow, bpf::v4::reverse_key>(v4.flows, v4.reverse,
                                                                            now)) {
        return false;
      }
      stage_ = Stage::kFlows6;
      return false;
    case Stage::kFlows6:
      if (has_ipv6 && StepFlows<bpf::v6::flow_key, bpf::v6::flow, bpf::v6::reverse_key>(
                          v6.flows, v6.reverse, now)) {
        return false;
      }
      PublishCounts();
      stage_ = Stage::kNames;
      return false;
    case Stage::kNames:
      // A flow is entered after its name: what has none yet may be about to.
      if (StepNames<bpf::v4::flow_key, bpf::v4::flow, bpf::v4::reverse_key>(v4.flows, v4.reverse)) {
        return false;
      }
      stage_ = Stage::kNames6;
      return false;
    case Stage::kNames6:
      if (has_ipv6 &&
          StepNames<bpf::v6::flow_key, bpf::v6::flow, bpf::v6::reverse_key>(v6.flows, v6.reverse)) {
        return false;
      }
      stage_ = Stage::kRest;
      return false;
    case Stage::kRest:
      SweepRest(now);
      ++statistics_.passes;
      stage_ = Stage::kFlows;
      return true;
  }
  return true;
}

}  // namespace cube::net
