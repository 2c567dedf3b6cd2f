#include "api/network_request.h"

#include <gtest/gtest.h>

namespace cube::api {
namespace {

struct Read {
  NetworkRequest request;
  std::string wrong;
};

Read Of(const std::string& body) {
  auto fields = Fields::Parse(body);
  auto network = fields->Object("network");
  Read read;
  read.request = ReadNetwork(&*fields, network ? &*network : nullptr);
  auto checked = fields->Check();
  if (!checked.ok()) read.wrong = checked.refusal().message;
  return read;
}

TEST(NetworkRequest, NoInternetIsADenialOfEverything) {
  Read read =
      Of(R"({"allow_internet_access":false,"network":{"allowOut":["*.x.test","10.0.0.1"]}})");
  EXPECT_EQ(read.wrong, "");
  EXPECT_EQ(read.request.policy.deny_out, (std::vector<std::string>{"0.0.0.0/0"}));
  EXPECT_EQ(read.request.policy.allow_out.size(), 2u);
  EXPECT_EQ(Of("{}").request.policy, pool::NetworkPolicy());
}

TEST(NetworkRequest, WhatIsNoAddressIsRefused) {
  EXPECT_EQ(Of(R"({"network":{"denyOut":["x.test"]}})").wrong,
            "\"network.denyOut\" has \"x.test\", which is not an address or range");
  EXPECT_EQ(Of(R"({"network":{"allowOut":["x.test"]}})").wrong,
            "\"network.allowOut\" has the domain \"x.test\", which takes 0.0.0.0/0 in denyOut");
  EXPECT_NE(Of(R"({"network":{"allowOut":["a b"],"denyOut":["0.0.0.0/0"]}})").wrong, "");
  for (const char* good : {"1.2.3.4", "1.2.3.4/0", "1.2.3.4/32", "::/0", "fe80::1"}) {
    EXPECT_TRUE(IsAddressRange(good)) << good;
  }
  for (const char* bad : {"", "1.2.3", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/x", "::/129"}) {
    EXPECT_FALSE(IsAddressRange(bad)) << bad;
  }
}

TEST(NetworkRequest, WhatNoNodeDoesIsNamed) {
  EXPECT_EQ(Of(R"({"network":{"egressProxy":{"address":"a"}}})").request.unsupported,
            "egressProxy");
  EXPECT_EQ(Of(R"({"network":{"httpsPorts":[443]}})").request.unsupported, "httpsPorts");
  EXPECT_EQ(Of(R"({"network":{"rules":{"a":[{}]}}})").request.unsupported, "rules");
  EXPECT_EQ(Of(R"({"network":{"rules":{},"httpsPorts":[]}})").request.unsupported, "");
}

TEST(NetworkRequest, AnUpdateReplacesWhatGoesOut) {
  EXPECT_EQ(MergeNetwork(R"({"allowPublicTraffic":false,"allowOut":["1.1.1.1"]})",
                         R"({"denyOut":["2.2.2.2"]})"),
            R"({"allowPublicTraffic":false,"denyOut":["2.2.2.2"]})");
  EXPECT_EQ(MergeNetwork(R"({"allowOut":["1.1.1.1"]})", ""), "");
}

}  // namespace
}  // namespace cube::api
