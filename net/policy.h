#ifndef CUBE_NET_POLICY_H_
#define CUBE_NET_POLICY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "net/network.h"

namespace cube::net {

// Which destinations one entry of a list means.
template <typename N>
struct RuleOf {
  N network;
  uint16_t first_port = 0;  // 0 to 65535: everything, be it without ports
  uint16_t last_port = 65535;
  uint8_t protocol = 0;  // of IP; 0: TCP and UDP, or all

  bool operator==(const RuleOf&) const = default;
};
using PolicyRule = RuleOf<Network>;
using PolicyRule6 = RuleOf<Network6>;

// "NETWORK[:PORT[-PORT][/tcp|/udp]]".
Result<PolicyRule> ParseRule(std::string_view text);
// "NETWORK" or "[NETWORK]:PORT[-PORT][/tcp|/udp]".
Result<PolicyRule6> ParseRule6(std::string_view text);
std::string RuleText(const PolicyRule& rule);
std::string RuleText(const PolicyRule6& rule);

// A host's name, "*." and one, or "*" for every name, lower-cased: RFC 1123 section 2.1, with '_'
// as it is used.
Result<std::string> ParseDomain(std::string_view text);
// Whether `name`, lower-cased and without a dot at its end, is meant by an entry of the list.
bool MatchesDomain(const std::vector<std::string>& domains, std::string_view name);

// What a sandbox may reach: what is allowed, else what is not denied, else, if `internet`,
// everything, be it by IPv4 or IPv6. The fixed set (fixed_set.h) comes before all of it.
struct Policy {
  static constexpr size_t kMaxRules = 512;  // in all lists together
  static constexpr size_t kMaxDomains = 128;

  bool internet = true;
  std::vector<PolicyRule> allow;
  std::vector<PolicyRule> deny;
  std::vector<PolicyRule6> allow6;
  std::vector<PolicyRule6> deny6;
  std::vector<std::string> domains;  // allowed by name, on ports 80 and 443
  uint64_t bytes_per_second = 0;     // from the sandbox, with headers; 0: no limit
  uint64_t packets_per_second = 0;   // likewise

  bool operator==(const Policy&) const = default;

  // From the lists of the E2B API: `allow` has networks and names, `deny` has networks. Names
  // are refused unless everything else is denied, for they would mean nothing.
  static Result<Policy> Parse(const std::vector<std::string>& allow,
                              const std::vector<std::string>& deny, bool internet);
  // Both lists as text.
  std::vector<std::string> AllowText() const;
  std::vector<std::string> DenyText() const;
};

// A port of the host that leads to one of a sandbox.
struct PortMapping {
  uint8_t protocol = 6;  // 6 or 17
  uint16_t host_port = 0;
  uint16_t port = 0;

  bool operator==(const PortMapping&) const = default;
};

// One node of the kernel's trie.
template <typename N>
struct CompiledRuleOf {
  N network;
  bpf::rule rule;
};
using CompiledRule = CompiledRuleOf<Network>;
using CompiledRule6 = CompiledRuleOf<Network6>;

// The policy's lists as the kernel looks them up: each network with all that the networks around it
// say. An error names a network of which more is said than a node holds.
Result<std::vector<CompiledRule>> CompilePolicy(const Policy& policy);
Result<std::vector<CompiledRule6>> CompilePolicy6(const Policy& policy);

// What stands in a slot for a policy whose rules are under `generation`, those of IPv6 if `ipv6`.
uint64_t PolicyWord(const Policy& policy, uint32_t generation, bool ipv6);

}  // namespace cube::net

#endif  // CUBE_NET_POLICY_H_
