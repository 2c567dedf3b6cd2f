#include "net/reaper.h"

#include <bpf/bpf.h>

#include <atomic>
#include <cerrno>
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

bool Reaper::IsAlive(const bpf::flow_key& key, const bpf::flow& flow, uint64_t now) const {
  if (key.slot >= CUBE_MAX_SLOTS || flow.epoch != programs_->slots()[key.slot].epoch) return false;
  // One that was seen since `now` was read is later than that.
  return flow.seen > now || now - flow.seen < bpf::flow_timeout(flow.state);
}

bool Reaper::StepFlows(uint64_t now) {
  const Programs::Maps& maps = programs_->maps();
  return Read<bpf::flow_key, bpf::flow>(maps.flows, [&](const auto& key, const auto& flow) {
    if (IsAlive(key, flow, now)) {
      ++counts_[key.slot];
      return;
    }
    // It may have begun anew since it was read.
    bpf::flow present;
    if (bpf_map_lookup_elem(maps.flows, &key, &present) != 0 || present.seen != flow.seen) return;
    bpf::reverse_key name = {flow.target,      flow.source,  flow.target_port,
                             flow.source_port, key.protocol, {}};
    bpf_map_delete_elem(maps.reverse, &name);
    bpf_map_delete_elem(maps.flows, &key);
    ++statistics_.reaped;
  });
}

bool Reaper::StepNames() {
  const Programs::Maps& maps = programs_->maps();
  return Read<bpf::reverse_key, bpf::flow_key>(
      maps.reverse, [&](const auto& name, const auto& key) {
        bpf::flow flow;
        bool leads = bpf_map_lookup_elem(maps.flows, &key, &flow) == 0 &&
                     flow.source_port == name.source_port && flow.source == name.source;
        if (!leads) bpf_map_delete_elem(maps.reverse, &name);
      });
}

// Tables that are small.
void Reaper::SweepRest(uint64_t now) {
  const Programs::Maps& maps = programs_->maps();
  const bpf::slot* slots = programs_->slots();
  do {
  } while (Read<bpf::opened_key, bpf::opened>(maps.opened, [&](const auto& key, const auto& value) {
    bool is_known = key.slot < CUBE_MAX_SLOTS && slots[key.slot].epoch == value.epoch;
    if (!is_known || value.until < now) bpf_map_delete_elem(maps.opened, &key);
  }));
  do {
  } while (
      Read<bpf::port_key, bpf::port_target>(maps.ports, [&](const auto& key, const auto& value) {
        bool is_known = value.slot < CUBE_MAX_SLOTS && slots[value.slot].epoch == value.epoch;
        if (!is_known) bpf_map_delete_elem(maps.ports, &key);
      }));
}

bool Reaper::Step() {
  uint64_t now = MonotonicNow();
  switch (stage_) {
    case Stage::kFlows:
      if (StepFlows(now)) return false;
      for (uint32_t slot = 0; slot < CUBE_MAX_SLOTS; ++slot) {
        bpf::slot& state = programs_->slots()[slot];
        if (state.ifindex == 0) continue;
        std::atomic_ref<decltype(state.flows)>(state.flows).store(counts_[slot]);
      }
      statistics_.flows = std::accumulate(counts_.begin(), counts_.end(), uint64_t{0});
      counts_.assign(CUBE_MAX_SLOTS, 0);
      stage_ = Stage::kNames;
      return false;
    case Stage::kNames:
      // A flow is entered after its name: what has none yet may be about to.
      if (StepNames()) return false;
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
