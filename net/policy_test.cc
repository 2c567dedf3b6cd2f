#include "net/policy.h"

#include <gtest/gtest.h>
#include <netinet/in.h>

namespace cube::net {
namespace {

TEST(PolicyTest, Networks) {
  auto network = ParseNetwork("10.1.0.0/16");
  ASSERT_TRUE(network.ok());
  EXPECT_EQ(network->address, 0x0a010000u);
  EXPECT_EQ(network->prefix, 16);
  EXPECT_EQ(NetworkText(*network), "10.1.0.0/16");
  EXPECT_EQ(NetworkText(ParseNetwork("0.0.0.0/0").value()), "0.0.0.0/0");
  EXPECT_EQ(NetworkText(ParseNetwork("255.255.255.255").value()), "255.255.255.255");
  for (const char* bad :
       {"", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4/", "1.2.3.4/33",
        "1.2.3.4/-1", "1.2.3.4/24", "1.2.3.4/032", " 1.2.3.4", "1.2.3.4 ", "+1.2.3.4", "1..3.4",
        "1.2.3.4/8/8", "0x1.2.3.4", "::1", "4294967296.0.0.0"}) {
    EXPECT_FALSE(ParseNetwork(bad).ok()) << bad;
  }
  EXPECT_EQ(ParseNetwork("1.2.3.4/24").error().message(),
            "\"1.2.3.4/24\" has bits beyond its prefix of 24");
}

TEST(PolicyTest, Rules) {
  for (const char* good :
       {"1.2.3.4", "1.2.3.0/24", "1.2.3.4:443", "1.2.3.0/24:1-65535/tcp", "0.0.0.0/0:53/udp"}) {
    auto rule = ParseRule(good);
    ASSERT_TRUE(rule.ok()) << good;
    EXPECT_EQ(RuleText(*rule), good);
  }
  for (const char* bad :
       {"1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:9-8", "1.2.3.4:80/icmp", "1.2.3.4:80-",
        "1.2.3.4:-80", "1.2.3.4:80:90", ":80"}) {
    EXPECT_FALSE(ParseRule(bad).ok()) << bad;
  }
}

TEST(PolicyTest, NetworksOfIpv6) {
  auto network = ParseNetwork6("2001:DB8::/32");
  ASSERT_TRUE(network.ok());
  EXPECT_EQ(network->address, Uint128{0x20010db8} << 96);
  EXPECT_EQ(network->prefix, 32);
  EXPECT_EQ(NetworkText(*network), "2001:db8::/32");
  for (const char* same :
       {"::/0", "::1", "ff00::/8", "fdcb:6375:6265::15/128", "1:2:3:4:5:6:7:8"}) {
    Network6 parsed = ParseNetwork6(same).value();
    EXPECT_EQ(ParseNetwork6(NetworkText(parsed)).value(), parsed) << same;
  }
  EXPECT_TRUE(ParseNetwork6("::/0")->Contains(*network));
  EXPECT_FALSE(network->Contains(ParseNetwork6("::/0").value()));
  EXPECT_FALSE(network->Contains(ParseNetwork6("2001:db9::").value()));
  for (const char* bad :
       {"", ":", ":::", "1.2.3.4", "2001:db8::/129", "2001:db8::/28", "::1/", "::1/08",
        "fe80::1%eth0", " ::1", "::1 ", "[::1]", "1:2:3:4:5:6:7:8:9", "g::"}) {
    EXPECT_FALSE(ParseNetwork6(bad).ok()) << bad;
  }
  EXPECT_FALSE(ParseNetwork6(std::string_view("::1\0", 4)).ok());
  EXPECT_FALSE(ParseNetwork6(std::string(300, ':')).ok());
}

TEST(PolicyTest, RulesOfIpv6) {
  for (const char* good : {"2001:db8::1", "2001:db8::/32", "[2001:db8::1]:443",
                           "[::/0]:1-65535/tcp", "[2001:db8::/32]:53/udp"}) {
    auto rule = ParseRule6(good);
    ASSERT_TRUE(rule.ok()) << good;
    EXPECT_EQ(RuleText(*rule), good);
    EXPECT_TRUE(LooksLikeIpv6(good));
  }
  for (const char* bad :
       {"[2001:db8::1]", "[2001:db8::1]:", "[2001:db8::1]:0", "[2001:db8::1]:65536",
        "[2001:db8::1]:9-8", "[1.2.3.4]:80", "[]:80", "[::]80", "[::1:80"}) {
    EXPECT_FALSE(ParseRule6(bad).ok()) << bad;
  }
  auto policy = Policy::Parse({"1.2.3.4", "2001:db8::/32", "[::1]:80/tcp"}, {"::/0"}, true);
  ASSERT_TRUE(policy.ok());
  EXPECT_TRUE(policy->internet);  // of IPv4
  EXPECT_EQ(policy->allow.size(), 1u);
  EXPECT_EQ(policy->allow6.size(), 2u);
  EXPECT_EQ(policy->deny6.size(), 1u);
  EXPECT_EQ(Policy::Parse(policy->AllowText(), policy->DenyText(), true).value(), *policy);
  EXPECT_FALSE(Policy::Parse({"a.example", "::/0"}, {"::/0"}, true).ok());
  std::vector<std::string> many(300, "::1"), more(300, "1.2.3.4");
  EXPECT_FALSE(Policy::Parse(many, more, true).ok());
}

TEST(PolicyTest, Domains) {
  EXPECT_EQ(ParseDomain("Example.COM.").value(), "example.com");
  EXPECT_EQ(ParseDomain("*.a-b.example").value(), "*.a-b.example");
  for (const char* bad : {"", "*.", "**.x", "a..b", "-a.b", "a-.b", "a b", "1.2.3.4", "a.1",
                          "x.*.y", "\xff.com", "a/b"}) {
    EXPECT_FALSE(ParseDomain(bad).ok()) << bad;
  }
  EXPECT_FALSE(ParseDomain(std::string(64, 'a')).ok());
  EXPECT_FALSE(ParseDomain(std::string(300, 'a')).ok());
  EXPECT_TRUE(MatchesDomain({"*"}, "a.b"));
  const std::vector<std::string> list = {"example.com", "*.example.org"};
  EXPECT_TRUE(MatchesDomain(list, "example.com"));
  EXPECT_TRUE(MatchesDomain(list, "a.b.example.org"));
  EXPECT_FALSE(MatchesDomain(list, "example.org"));
  EXPECT_FALSE(MatchesDomain(list, "evilexample.org"));
  EXPECT_FALSE(MatchesDomain(list, "www.example.com"));
}

TEST(PolicyTest, ListsOfTheApi) {
  auto policy = Policy::Parse({"1.1.1.1", "*.pypi.org"}, {"0.0.0.0/0"}, true);
  ASSERT_TRUE(policy.ok()) << policy.error().message();
  EXPECT_FALSE(policy->internet);
  EXPECT_EQ(policy->domains, std::vector<std::string>{"*.pypi.org"});
  EXPECT_EQ(policy->AllowText(), (std::vector<std::string>{"1.1.1.1", "*.pypi.org"}));
  EXPECT_FALSE(Policy::Parse({"pypi.org"}, {}, true).ok());
  EXPECT_TRUE(Policy::Parse({"pypi.org"}, {}, false).ok());
  EXPECT_FALSE(Policy::Parse({}, {"pypi.org"}, true).ok());
  EXPECT_FALSE(Policy::Parse({}, {"0.0.0.0/0:80"}, false)->internet);
  EXPECT_TRUE(Policy::Parse({}, {"0.0.0.0/0:80"}, true)->internet);
  EXPECT_FALSE(Policy::Parse(std::vector<std::string>(513, "1.1.1.1"), {}, true).ok());
  EXPECT_FALSE(Policy::Parse(std::vector<std::string>(129, "a.b"), {}, false).ok());
  EXPECT_FALSE(Policy::Parse(std::vector<std::string>(10'000, "x"), {}, false).ok());
}

const CompiledRule* Node(const std::vector<CompiledRule>& rules, const char* network) {
  for (const CompiledRule& rule : rules) {
    if (NetworkText(rule.network) == network) return &rule;
  }
  return nullptr;
}

TEST(PolicyTest, NodesHaveWhatTheNetworksAroundThemSay) {
  auto policy =
      Policy::Parse({"10.0.0.0/8:443", "10.1.0.0/16:80"}, {"10.1.2.0/24", "0.0.0.0/0:25"}, true);
  ASSERT_TRUE(policy.ok());
  auto rules = CompilePolicy(*policy);
  ASSERT_TRUE(rules.ok());
  ASSERT_EQ(rules->size(), 4u);
  const CompiledRule* node = Node(*rules, "10.1.2.0/24");
  ASSERT_NE(node, nullptr);
  ASSERT_EQ(node->rule.count, 3u);
  EXPECT_EQ(node->rule.ranges[0].first, 443);
  EXPECT_EQ(node->rule.ranges[0].deny, 0);
  EXPECT_EQ(node->rule.ranges[1].first, 80);
  // Everything is denied, which port 25 is part of.
  EXPECT_EQ(node->rule.ranges[2].first, 0);
  EXPECT_EQ(node->rule.ranges[2].last, 65535);
  EXPECT_EQ(node->rule.ranges[2].deny, 1);
  EXPECT_EQ(Node(*rules, "0.0.0.0/0")->rule.count, 1u);
}

TEST(PolicyTest, RangesGrowTogether) {
  auto policy =
      Policy::Parse({"1.1.1.1:1-10", "1.1.1.1:20-30", "1.1.1.1:11-19", "1.1.1.1:5/tcp"}, {}, false);
  ASSERT_TRUE(policy.ok());
  auto rules = CompilePolicy(*policy);
  ASSERT_TRUE(rules.ok());
  ASSERT_EQ((*rules)[0].rule.count, 1u);
  EXPECT_EQ((*rules)[0].rule.ranges[0].first, 1);
  EXPECT_EQ((*rules)[0].rule.ranges[0].last, 30);
}

TEST(PolicyTest, TooMuchIsSaidOfANetwork) {
  std::vector<std::string> allow;
  for (int port = 10; port < 100; port += 10) allow.push_back(Format("1.1.1.1:%d", port));
  auto rules = CompilePolicy(Policy::Parse(allow, {}, false).value());
  ASSERT_FALSE(rules.ok());
  EXPECT_EQ(rules.error().message(), "9 ranges of ports are said of 1.1.1.1: more than 8");
}

}  // namespace
}  // namespace cube::net
