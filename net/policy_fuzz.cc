#include <cstdlib>
#include <string>

#include "net/policy.h"

// What is taken reads back as the same; a compiled policy agrees with the lists it was made of.
namespace {

using namespace cube::net;

bool Means(const PolicyRule& rule, uint32_t address, uint16_t port) {
  return rule.network.Contains({address, 32}) && port >= rule.first_port &&
         port <= rule.last_port && (rule.protocol == 0 || rule.protocol == 6);
}

void Check(const Policy& policy, uint32_t address, uint16_t port) {
  bool allowed = false, denied = false;
  for (const PolicyRule& rule : policy.allow) allowed |= Means(rule, address, port);
  for (const PolicyRule& rule : policy.deny) denied |= Means(rule, address, port);
  auto rules = CompilePolicy(policy);
  if (!rules.ok()) return;
  const CompiledRule* longest = nullptr;
  for (const CompiledRule& rule : *rules) {
    if (!rule.network.Contains({address, 32})) continue;
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
  }
  auto policy = Policy::Parse(lists[0], lists[1], size % 2 == 0);
  if (!policy.ok()) return 0;
  for (const auto* list : {&policy->allow, &policy->deny}) {
    for (const PolicyRule& rule : *list) {
      Check(*policy, rule.network.address, rule.first_port);
      Check(*policy, rule.network.address, rule.last_port);
      Check(*policy, rule.network.address | ~rule.network.mask(), 443);
      Check(*policy, rule.network.address - 1, 443);
    }
  }
  return 0;
}
