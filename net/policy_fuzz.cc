#include <cstdlib>
#include <string>

#include "net/policy.h"

// What is taken reads back as the same; a compiled policy agrees with the lists it was made of.
namespace {

using namespace cube::net;

template <typename N>
bool Means(const RuleOf<N>& rule, const N& address, uint16_t port) {
  return rule.network.Contains(address) && port >= rule.first_port && port <= rule.last_port &&
         (rule.protocol == 0 || rule.protocol == 6);
}

// One family's lists, and what was made of them.
template <typename N>
struct Family {
  const std::vector<RuleOf<N>>& allow;
  const std::vector<RuleOf<N>>& deny;
  cube::Result<std::vector<CompiledRuleOf<N>>> compiled;
};

template <typename N>
void Check(const Family<N>& family, decltype(N::address) number, uint16_t port) {
  const N address = {number};
  bool allowed = false, denied = false;
  for (const RuleOf<N>& rule : family.allow) allowed |= Means(rule, address, port);
  for (const RuleOf<N>& rule : family.deny) denied |= Means(rule, address, port);
  if (!family.compiled.ok()) return;
  const CompiledRuleOf<N>* longest = nullptr;
  for (const CompiledRuleOf<N>& rule : family.compiled.value()) {
    if (!rule.network.Contains(address)) continue;
    if (longest == nullptr || rule.network.prefix > longest->network.prefix) longest = &rule;
  }
  int verdict = -1;
  for (uint32_t i = 0; longest != nullptr && i < longest->rule.count; ++i) {
    const bpf::port_range& range = longest->rule.ranges[i];
    bool in =
        port >= range.first && port <= range.last && (range.protocol == 0 || range.protocol == 6);
    if (in && verdict < 0) verdict = range.deny;
  }
  int expected = allowed ? 0 : denied ? 1 : -1;
  if (verdict != expected) abort();
}

template <typename N>
void CheckAll(const Family<N>& family) {
  for (const auto* list : {&family.allow, &family.deny}) {
    for (const RuleOf<N>& rule : *list) {
      Check(family, rule.network.address, rule.first_port);
      Check(family, rule.network.address, rule.last_port);
      Check(family, rule.network.address | ~rule.network.mask(), 443);
      Check(family, rule.network.address - 1, 443);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::string> lists[2];
  std::string word;
  int which = 0;
  for (size_t i = 0; i < size; ++i) {
    if (data[i] == '\n' || data[i] == '!') {
      lists[which].push_back(word);
      word.clear();
      which = data[i] == '!';
    } else {
      word += static_cast<char>(data[i]);
    }
  }
  lists[which].push_back(word);
  for (const std::string& text : lists[0]) {
    auto domain = ParseDomain(text);
    if (domain.ok() && ParseDomain(*domain).value() != *domain) abort();
    auto rule = ParseRule(text);
    if (rule.ok() && !(ParseRule(RuleText(*rule)).value() == *rule)) abort();
    auto rule6 = ParseRule6(text);
    if (rule6.ok() && !(ParseRule6(RuleText(*rule6)).value() == *rule6)) abort();
  }
  auto policy = Policy::Parse(lists[0], lists[1], size % 2 == 0);
  if (!policy.ok()) return 0;
  CheckAll(Family<Network>{policy->allow, policy->deny, CompilePolicy(*policy)});
  CheckAll(Family<Network6>{policy->allow6, policy->deny6, CompilePolicy6(*policy)});
  auto again = Policy::Parse(policy->AllowText(), policy->DenyText(), policy->internet);
  if (!again.ok() || !(*again == *policy)) abort();
  return 0;
}
