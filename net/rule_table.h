#ifndef CUBE_NET_RULE_TABLE_H_
#define CUBE_NET_RULE_TABLE_H_

#include <cstdint>
#include <set>
#include <vector>

#include "base/result.h"
#include "net/policy.h"

namespace cube::net {

// The rules of all sandboxes in the kernel: a trie in which each policy stands under a number of
// its own, its generation, so that a new one is complete before it is referred to.
template <typename N>
class RuleTableOf {
 public:
  using Rules = std::vector<CompiledRuleOf<N>>;

  // `map`: `rules` of Programs::Maps, or of Maps6.
  explicit RuleTableOf(int map) : map_(map) {}

  // All, or nothing.
  Status Add(uint32_t generation, const Rules& rules);
  void Remove(uint32_t generation, const Rules& rules);
  // Everything that stands under none of these.
  void RemoveOthers(const std::set<uint32_t>& generations);

 private:
  int map_;
};
using RuleTable = RuleTableOf<Network>;
using RuleTable6 = RuleTableOf<Network6>;

}  // namespace cube::net

#endif  // CUBE_NET_RULE_TABLE_H_
