#include "net/policy.h"

#include <netinet/in.h>

#include <algorithm>

namespace cube::net {
namespace {

constexpr size_t kMaxText = 256;
constexpr size_t kMaxName = 253;
constexpr size_t kMaxLabel = 63;

bool IsLabel(std::string_view label) {
  if (label.empty() || label.size() > kMaxLabel || label.front() == '-' || label.back() == '-') {
    return false;
  }
  return std::ranges::all_of(label, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

bool LooksLikeNetwork(std::string_view text) {
  return std::ranges::all_of(text,
                             [](char c) {
                               return (c >= '0' && c <= '9') || c == '.' || c == '/' || c == ':' ||
                                      c == '-';
                             }) ||
         text.find('/') != std::string_view::npos || text.find(':') != std::string_view::npos;
}

bool IsEverything(const PolicyRule& rule) {
  return rule.network.prefix == 0 && rule.first_port == 0 && rule.last_port == 65535 &&
         rule.protocol == 0;
}

bool IsWithin(const bpf::port_range& inner, const bpf::port_range& outer) {
  return (outer.protocol == 0 || outer.protocol == inner.protocol) && outer.first <= inner.first &&
         inner.last <= outer.last;
}

// Adds a range unless those before it say as much, and takes out those that it says as much as.
void AddRange(std::vector<bpf::port_range>* ranges, bpf::port_range added) {
  for (const bpf::port_range& known : *ranges) {
    if (known.deny == added.deny && IsWithin(added, known)) return;
  }
  std::erase_if(*ranges, [&](const bpf::port_range& known) {
    return known.deny == added.deny && IsWithin(known, added);
  });
  for (bpf::port_range& known : *ranges) {
    bool touch = added.first <= known.last + 1 && known.first <= added.last + 1;
    if (known.deny == added.deny && known.protocol == added.protocol && touch) {
      bpf::port_range both = known;
      both.first = std::min(known.first, added.first);
      both.last = std::max(known.last, added.last);
      std::erase_if(*ranges, [&](const bpf::port_range& other) {
        return other.deny == both.deny && IsWithin(other, both);
      });
      AddRange(ranges, both);
      return;
    }
  }
  ranges->push_back(added);
}

// A rule and its place: all that allow come before all that deny, each in the order of its list.
template <typename N>
struct Said {
  const RuleOf<N>* rule;
  bool deny;
  size_t place;
};

// ":PORT[-PORT][/tcp|/udp]" behind a network.
template <typename N>
Status ParsePorts(std::string_view text, std::string_view ports, RuleOf<N>* rule) {
  if (ports.ends_with("/tcp")) rule->protocol = IPPROTO_TCP;
  if (ports.ends_with("/udp")) rule->protocol = IPPROTO_UDP;
  if (rule->protocol != 0) ports.remove_suffix(4);
  size_t dash = ports.find('-');
  uint32_t first = PlainNumber(ports.substr(0, dash), 65535), last = first;
  if (dash != std::string_view::npos) last = PlainNumber(ports.substr(dash + 1), 65535);
  if (first == 0 || first > last || last > 65535) {
    return Errorf("\"%s\" is not NETWORK[:PORT[-PORT][/tcp|/udp]] with ports from 1 to 65535",
                  ShownText(text).c_str());
  }
  rule->first_port = static_cast<uint16_t>(first);
  rule->last_port = static_cast<uint16_t>(last);
  return OkStatus();
}

template <typename N>
std::string PortsText(const RuleOf<N>& rule) {
  std::string text = Format(":%u", rule.first_port);
  if (rule.last_port != rule.first_port) text += Format("-%u", rule.last_port);
  if (rule.protocol != 0) text += rule.protocol == IPPROTO_TCP ? "/tcp" : "/udp";
  return text;
}

template <typename N>
Result<std::vector<CompiledRuleOf<N>>> Compile(const std::vector<RuleOf<N>>& allow,
                                               const std::vector<RuleOf<N>>& deny) {
  std::vector<Said<N>> said;
  said.reserve(allow.size() + deny.size());
  for (const RuleOf<N>& rule : allow) said.push_back({&rule, false, said.size()});
  for (const RuleOf<N>& rule : deny) said.push_back({&rule, true, said.size()});
  std::ranges::stable_sort(said, {}, [](const Said<N>& one) { return one.rule->network; });
  std::vector<CompiledRuleOf<N>> compiled;
  compiled.reserve(said.size());
  // Those of the networks around the present one, and its own: in this order, the outer is first.
  std::vector<Said<N>> around, covering;
  std::vector<bpf::port_range> ranges;
  for (size_t i = 0; i < said.size();) {
    const N& network = said[i].rule->network;
    while (!around.empty() && !around.back().rule->network.Contains(network)) around.pop_back();
    for (; i < said.size() && said[i].rule->network == network; ++i) around.push_back(said[i]);
    covering = around;
    std::ranges::sort(covering, {}, &Said<N>::place);
    ranges.clear();
    for (const Said<N>& one : covering) {
      AddRange(&ranges, {one.rule->first_port, one.rule->last_port, one.rule->protocol, one.deny});
    }
    if (ranges.size() > CUBE_MAX_RANGES) {
      return Errorf("%zu ranges of ports are said of %s: more than %d", ranges.size(),
                    NetworkText(network).c_str(), CUBE_MAX_RANGES);
    }
    CompiledRuleOf<N> rule = {network, {}};
    rule.rule.count = static_cast<uint32_t>(ranges.size());
    std::ranges::copy(ranges, rule.rule.ranges);
    compiled.push_back(rule);
  }
  return compiled;
}

}  // namespace

Result<PolicyRule> ParseRule(std::string_view text) {
  PolicyRule rule;
  if (text.size() > kMaxText) return Errorf("a rule of %zu bytes", text.size());
  size_t colon = text.find(':');
  CUBE_ASSIGN(rule.network, ParseNetwork(text.substr(0, colon)));
  if (colon != std::string_view::npos) CUBE_TRY(ParsePorts(text, text.substr(colon + 1), &rule));
  return rule;
}

Result<PolicyRule6> ParseRule6(std::string_view text) {
  PolicyRule6 rule;
  if (text.size() > kMaxText) return Errorf("a rule of %zu bytes", text.size());
  if (!text.starts_with('[')) {
    CUBE_ASSIGN(rule.network, ParseNetwork6(text));
    return rule;
  }
  size_t end = text.find("]:");
  if (end == std::string_view::npos) {
    return Errorf("\"%s\" is not [NETWORK]:PORT[-PORT][/tcp|/udp]", ShownText(text).c_str());
  }
  CUBE_ASSIGN(rule.network, ParseNetwork6(text.substr(1, end - 1)));
  CUBE_TRY(ParsePorts(text, text.substr(end + 2), &rule));
  return rule;
}

std::string RuleText(const PolicyRule& rule) {
  std::string text = NetworkText(rule.network);
  return rule.first_port == 0 ? text : text + PortsText(rule);
}

std::string RuleText(const PolicyRule6& rule) {
  std::string text = NetworkText(rule.network);
  return rule.first_port == 0 ? text : "[" + text + "]" + PortsText(rule);
}

Result<std::string> ParseDomain(std::string_view text) {
  std::string name(text.substr(0, kMaxName + 2));
  std::ranges::transform(name, name.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c;
  });
  if (name.ends_with('.')) name.pop_back();
  if (text == "*") return name;
  std::string_view rest = name;
  if (rest.starts_with("*.")) rest.remove_prefix(2);
  bool good = !rest.empty() && name.size() <= kMaxName;
  bool has_letter = false;
  for (size_t start = 0; good && start <= rest.size();) {
    size_t end = std::min(rest.find('.', start), rest.size());
    std::string_view label = rest.substr(start, end - start);
    good = IsLabel(label);
    // The last one is never all digits (RFC 3696 section 2): an address is no name.
    has_letter = std::ranges::any_of(label, [](char c) { return c < '0' || c > '9'; });
    start = end + 1;
  }
  if (good && has_letter) return name;
  return Errorf("\"%s\" is neither a network nor a domain", ShownText(text).c_str());
}

bool MatchesDomain(const std::vector<std::string>& domains, std::string_view name) {
  return std::ranges::any_of(domains, [&](std::string_view domain) {
    if (domain == "*") return true;
    if (!domain.starts_with("*.")) return domain == name;
    // With its dot.
    std::string_view suffix = domain.substr(1);
    return name.size() > suffix.size() && name.ends_with(suffix);
  });
}

Result<Policy> Policy::Parse(const std::vector<std::string>& allow,
                             const std::vector<std::string>& deny, bool internet) {
  Policy policy;
  if (allow.size() + deny.size() > kMaxRules + kMaxDomains) {
    return Errorf("%zu entries of allowOut and denyOut are more than %zu",
                  allow.size() + deny.size(), kMaxRules + kMaxDomains);
  }
  for (const std::string& text : deny) {
    if (LooksLikeIpv6(text)) {
      CUBE_ASSIGN(PolicyRule6 rule, ParseRule6(text));
      policy.deny6.push_back(rule);
      continue;
    }
    CUBE_ASSIGN(PolicyRule rule, ParseRule(text));
    if (IsEverything(rule)) internet = false;
    policy.deny.push_back(rule);
  }
  policy.internet = internet;
  for (const std::string& text : allow) {
    if (LooksLikeIpv6(text)) {
      CUBE_ASSIGN(PolicyRule6 rule, ParseRule6(text));
      policy.allow6.push_back(rule);
      continue;
    }
    if (LooksLikeNetwork(text)) {
      CUBE_ASSIGN(PolicyRule rule, ParseRule(text));
      policy.allow.push_back(rule);
      continue;
    }
    CUBE_ASSIGN(std::string domain, ParseDomain(text));
    policy.domains.push_back(std::move(domain));
  }
  size_t rules =
      policy.allow.size() + policy.deny.size() + policy.allow6.size() + policy.deny6.size();
  if (rules > kMaxRules) {
    return Errorf("%zu rules are more than the %zu a sandbox may have", rules, kMaxRules);
  }
  if (policy.domains.size() > kMaxDomains) {
    return Errorf("%zu domains are more than the %zu a sandbox may have", policy.domains.size(),
                  kMaxDomains);
  }
  if (!policy.domains.empty() && policy.internet) {
    return Errorf("allowOut has the domain \"%s\": then denyOut has to have 0.0.0.0/0",
                  policy.domains[0].c_str());
  }
  return policy;
}

std::vector<std::string> Policy::AllowText() const {
  std::vector<std::string> text;
  for (const PolicyRule& rule : allow) text.push_back(RuleText(rule));
  for (const PolicyRule6& rule : allow6) text.push_back(RuleText(rule));
  text.insert(text.end(), domains.begin(), domains.end());
  return text;
}

std::vector<std::string> Policy::DenyText() const {
  std::vector<std::string> text;
  for (const PolicyRule& rule : deny) text.push_back(RuleText(rule));
  for (const PolicyRule6& rule : deny6) text.push_back(RuleText(rule));
  return text;
}

Result<std::vector<CompiledRule>> CompilePolicy(const Policy& policy) {
  return Compile(policy.allow, policy.deny);
}

Result<std::vector<CompiledRule6>> CompilePolicy6(const Policy& policy) {
  return Compile(policy.allow6, policy.deny6);
}

uint64_t PolicyWord(const Policy& policy, uint32_t generation, bool ipv6) {
  uint64_t flags = policy.internet ? bpf::SLOT_INTERNET : 0;
  if (!policy.domains.empty()) flags |= bpf::SLOT_DOMAINS;
  if (ipv6) flags |= bpf::SLOT_IPV6;
  return flags << 32 | generation;
}

}  // namespace cube::net
