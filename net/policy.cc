#include "net/policy.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <optional>

namespace cube::net {
namespace {

constexpr size_t kMaxText = 256;
constexpr size_t kMaxName = 253;
constexpr size_t kMaxLabel = 63;

// What of a hostile text an error shows.
std::string Shown(std::string_view text) {
  std::string shown;
  for (char c : text.substr(0, 64)) shown += c >= ' ' && c <= '~' && c != '"' ? c : '?';
  return shown;
}

std::optional<uint32_t> Number(std::string_view text, uint32_t most) {
  uint32_t value = 0;
  auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size() || value > most) return {};
  if (text.size() > 1 && text[0] == '0') return {};
  return value;
}

std::optional<uint32_t> Dotted(std::string_view text) {
  uint32_t address = 0;
  for (int i = 0; i < 4; ++i) {
    size_t end = i < 3 ? text.find('.') : text.size();
    if (end == std::string_view::npos) return {};
    auto byte = Number(text.substr(0, end), 255);
    if (!byte) return {};
    address = address << 8 | *byte;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return address;
}

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
struct Said {
  const PolicyRule* rule;
  bool deny;
  size_t place;
};

}  // namespace

Result<Network> ParseNetwork(std::string_view text) {
  size_t slash = text.find('/');
  auto address = Dotted(text.substr(0, slash));
  std::optional<uint32_t> prefix = 32;
  if (slash != std::string_view::npos) prefix = Number(text.substr(slash + 1), 32);
  if (!address || !prefix) {
    return Errorf("\"%s\" is not A.B.C.D or A.B.C.D/PREFIX", Shown(text).c_str());
  }
  Network network = {*address, static_cast<uint8_t>(*prefix)};
  if ((network.address & ~network.mask()) != 0) {
    return Errorf("\"%s\" has bits beyond its prefix of %u", Shown(text).c_str(), *prefix);
  }
  return network;
}

std::string NetworkText(const Network& network) {
  uint32_t a = network.address;
  std::string text = Format("%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
  return network.prefix == 32 ? text : text + Format("/%u", network.prefix);
}

Result<PolicyRule> ParseRule(std::string_view text) {
  PolicyRule rule;
  if (text.size() > kMaxText) return Errorf("a rule of %zu bytes", text.size());
  size_t colon = text.find(':');
  CUBE_ASSIGN(rule.network, ParseNetwork(text.substr(0, colon)));
  if (colon == std::string_view::npos) return rule;
  std::string_view ports = text.substr(colon + 1);
  if (ports.ends_with("/tcp")) rule.protocol = IPPROTO_TCP;
  if (ports.ends_with("/udp")) rule.protocol = IPPROTO_UDP;
  if (rule.protocol != 0) ports.remove_suffix(4);
  size_t dash = ports.find('-');
  auto first = Number(ports.substr(0, dash), 65535);
  auto last = dash == std::string_view::npos ? first : Number(ports.substr(dash + 1), 65535);
  if (!first || !last || *first == 0 || *first > *last) {
    return Errorf("\"%s\" is not NETWORK[:PORT[-PORT][/tcp|/udp]] with ports from 1 to 65535",
                  Shown(text).c_str());
  }
  rule.first_port = static_cast<uint16_t>(*first);
  rule.last_port = static_cast<uint16_t>(*last);
  return rule;
}

std::string RuleText(const PolicyRule& rule) {
  std::string text = NetworkText(rule.network);
  if (rule.first_port == 0) return text;
  text += Format(":%u", rule.first_port);
  if (rule.last_port != rule.first_port) text += Format("-%u", rule.last_port);
  if (rule.protocol != 0) text += rule.protocol == IPPROTO_TCP ? "/tcp" : "/udp";
  return text;
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
  return Errorf("\"%s\" is neither a network nor a domain", Shown(text).c_str());
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
    CUBE_ASSIGN(PolicyRule rule, ParseRule(text));
    if (IsEverything(rule)) internet = false;
    policy.deny.push_back(rule);
  }
  policy.internet = internet;
  for (const std::string& text : allow) {
    if (LooksLikeNetwork(text)) {
      CUBE_ASSIGN(PolicyRule rule, ParseRule(text));
      policy.allow.push_back(rule);
      continue;
    }
    CUBE_ASSIGN(std::string domain, ParseDomain(text));
    policy.domains.push_back(std::move(domain));
  }
  if (policy.allow.size() + policy.deny.size() > kMaxRules) {
    return Errorf("%zu rules are more than the %zu a sandbox may have",
                  policy.allow.size() + policy.deny.size(), kMaxRules);
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
  text.insert(text.end(), domains.begin(), domains.end());
  return text;
}

std::vector<std::string> Policy::DenyText() const {
  std::vector<std::string> text;
  for (const PolicyRule& rule : deny) text.push_back(RuleText(rule));
  return text;
}

Result<std::vector<CompiledRule>> CompilePolicy(const Policy& policy) {
  std::vector<Said> said;
  said.reserve(policy.allow.size() + policy.deny.size());
  for (const PolicyRule& rule : policy.allow) said.push_back({&rule, false, said.size()});
  for (const PolicyRule& rule : policy.deny) said.push_back({&rule, true, said.size()});
  std::ranges::stable_sort(said, {}, [](const Said& one) { return one.rule->network; });
  std::vector<CompiledRule> compiled;
  compiled.reserve(said.size());
  // Those of the networks around the present one, and its own: in this order, the outer is first.
  std::vector<Said> around, covering;
  std::vector<bpf::port_range> ranges;
  for (size_t i = 0; i < said.size();) {
    const Network& network = said[i].rule->network;
    while (!around.empty() && !around.back().rule->network.Contains(network)) around.pop_back();
    for (; i < said.size() && said[i].rule->network == network; ++i) around.push_back(said[i]);
    covering = around;
    std::ranges::sort(covering, {}, &Said::place);
    ranges.clear();
    for (const Said& one : covering) {
      AddRange(&ranges, {one.rule->first_port, one.rule->last_port, one.rule->protocol, one.deny});
    }
    if (ranges.size() > CUBE_MAX_RANGES) {
      return Errorf("%zu ranges of ports are said of %s: more than %d", ranges.size(),
                    NetworkText(network).c_str(), CUBE_MAX_RANGES);
    }
    CompiledRule rule = {network, {}};
    rule.rule.count = static_cast<uint32_t>(ranges.size());
    std::ranges::copy(ranges, rule.rule.ranges);
    compiled.push_back(rule);
  }
  return compiled;
}

uint64_t PolicyWord(const Policy& policy, uint32_t generation) {
  uint64_t flags = policy.internet ? bpf::SLOT_INTERNET : 0;
  if (!policy.domains.empty()) flags |= bpf::SLOT_DOMAINS;
  return flags << 32 | generation;
}

}  // namespace cube::net
