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
class RuleTable {
 public:
  // `map`: Programs::Maps::rules.
  explicit RuleTable(int map) : map_(map) {}

  // All, or nothing.
  Status Add(uint32_t generation, const std::vector<CompiledRule>& rules);
  void Remove(uint32_t generation, const std::vector<CompiledRule>& rules);
  // Everything that stands under none of these.
  void RemoveOthers(const std::set<uint32_t>& generations);

 private:
  int map_;
};

}  // namespace cube::net

#endif  // CUBE_NET_RULE_TABLE_H_
