#include "net/rule_table.h"

#include <bpf/bpf.h>

namespace cube::net {
namespace {

template <typename N>
auto Keys(uint32_t generation, const std::vector<CompiledRuleOf<N>>& rules) {
  std::vector<typename KeysOf<N>::Rule> keys;
  keys.reserve(rules.size());
  for (const CompiledRuleOf<N>& rule : rules) {
    keys.push_back({32u + rule.network.prefix, generation, ToWire(rule.network.address)});
  }
  return keys;
}

}  // namespace

template <typename N>
Status RuleTableOf<N>::Add(uint32_t generation, const Rules& rules) {
  if (rules.empty()) return OkStatus();
  auto keys = Keys(generation, rules);
  std::vector<bpf::rule> values;
  values.reserve(rules.size());
  for (const CompiledRuleOf<N>& rule : rules) values.push_back(rule.rule);
  auto count = static_cast<uint32_t>(keys.size());
  LIBBPF_OPTS(bpf_map_batch_opts, options);
  if (bpf_map_update_batch(map_, keys.data(), values.data(), &count, &options) == 0) {
    return OkStatus();
  }
  Error error =
      ErrnoError("the %zu rules of a sandbox, with room for %d", rules.size(), CUBE_MAX_RULES);
  Remove(generation, rules);
  return error;
}

template <typename N>
void RuleTableOf<N>::Remove(uint32_t generation, const Rules& rules) {
  auto keys = Keys(generation, rules);
  // A batch ends at what is not there, so that it is gone on with behind it.
  for (size_t done = 0; done < keys.size(); ++done) {
    auto count = static_cast<uint32_t>(keys.size() - done);
    LIBBPF_OPTS(bpf_map_batch_opts, options);
    if (bpf_map_delete_batch(map_, &keys[done], &count, &options) == 0) return;
    done += count;
  }
}

template <typename N>
void RuleTableOf<N>::RemoveOthers(const std::set<uint32_t>& generations) {
  using Key = typename KeysOf<N>::Rule;
  std::vector<Key> gone;
  Key key, next;
  const void* at = nullptr;
  while (bpf_map_get_next_key(map_, at, &next) == 0) {
    if (!generations.contains(next.generation)) gone.push_back(next);
    key = next;
    at = &key;
  }
  for (const Key& each : gone) bpf_map_delete_elem(map_, &each);
}

template class RuleTableOf<Network>;
template class RuleTableOf<Network6>;

}  // namespace cube::net
