#include "net/rule_table.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>

namespace cube::net {
namespace {

std::vector<bpf::rule_key> Keys(uint32_t generation, const std::vector<CompiledRule>& rules) {
  std::vector<bpf::rule_key> keys;
  keys.reserve(rules.size());
  for (const CompiledRule& rule : rules) {
    keys.push_back({32u + rule.network.prefix, generation, htonl(rule.network.address)});
  }
  return keys;
}

}  // namespace

Status RuleTable::Add(uint32_t generation, const std::vector<CompiledRule>& rules) {
  if (rules.empty()) return OkStatus();
  std::vector<bpf::rule_key> keys = Keys(generation, rules);
  std::vector<bpf::rule> values;
  values.reserve(rules.size());
  for (const CompiledRule& rule : rules) values.push_back(rule.rule);
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

void RuleTable::Remove(uint32_t generation, const std::vector<CompiledRule>& rules) {
  std::vector<bpf::rule_key> keys = Keys(generation, rules);
  // A batch ends at what is not there, so that it is gone on with behind it.
  for (size_t done = 0; done < keys.size(); ++done) {
    auto count = static_cast<uint32_t>(keys.size() - done);
    LIBBPF_OPTS(bpf_map_batch_opts, options);
    if (bpf_map_delete_batch(map_, &keys[done], &count, &options) == 0) return;
    done += count;
  }
}

void RuleTable::RemoveOthers(const std::set<uint32_t>& generations) {
  std::vector<bpf::rule_key> gone;
  bpf::rule_key key, next;
  const void* at = nullptr;
  while (bpf_map_get_next_key(map_, at, &next) == 0) {
    if (!generations.contains(next.generation)) gone.push_back(next);
    key = next;
    at = &key;
  }
  for (const bpf::rule_key& each : gone) bpf_map_delete_elem(map_, &each);
}

}  // namespace cube::net
