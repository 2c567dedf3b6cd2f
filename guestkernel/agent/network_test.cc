#include "guestkernel/agent/network.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace cube::agent {
namespace {

TEST(Network, ParsesInterfaces) {
  auto all = ParseNetwork("eth0,10.0.0.2/24,10.0.0.1,1.1.1.1;eth1,192.168.7.7/32,,");
  ASSERT_TRUE(all.ok()) << all.error().message();
  ASSERT_EQ(all->size(), 2u);
  EXPECT_EQ(all->at(0).name, "eth0");
  EXPECT_EQ(all->at(0).address, htonl(0x0a000002));
  EXPECT_EQ(all->at(0).prefix, 24);
  EXPECT_EQ(all->at(0).gateway, htonl(0x0a000001));
  EXPECT_EQ(all->at(0).dns, "1.1.1.1");
  EXPECT_EQ(all->at(1).gateway, 0u);
  EXPECT_EQ(all->at(1).dns, "");
  EXPECT_TRUE(ParseNetwork("")->empty());
}

TEST(Network, WhatCannotBeIsAnError) {
  for (const char* text :
       {"eth0", "eth0,", ",10.0.0.2/24", "eth0,10.0.0.2", "eth0,10.0.0/24", "eth0,10.0.0.2/33",
        "eth0,10.0.0.2/", "eth0,10.0.0.2/-1", "eth0,10.0.0.2/24,x", "eth0,10.0.0.2/24,,y",
        "eth0,10.0.0.2/24,,,z", "a-name-of-16-chr,10.0.0.2/24", ";"}) {
    EXPECT_FALSE(ParseNetwork(text).ok()) << text;
  }
}

// On the loopback interface of a network namespace of the test's own.
TEST(Network, SetsUpAnInterface) {
  ASSERT_EQ(unshare(CLONE_NEWNET), 0) << "has to be root";
  std::string path = std::string(getenv("TEST_TMPDIR")) + "/resolv.conf";
  auto all = ParseNetwork("lo,10.9.8.7/20,10.9.0.1,9.9.9.9");
  ASSERT_TRUE(all.ok());
  Status set = SetUpInterface(all->at(0), path.c_str());
  ASSERT_TRUE(set.ok()) << set.error().message();
  std::ostringstream resolv;
  resolv << std::ifstream(path).rdbuf();
  EXPECT_EQ(resolv.str(), "nameserver 9.9.9.9\n");
  ifaddrs* list = nullptr;
  ASSERT_EQ(getifaddrs(&list), 0);
  bool found = false;
  for (ifaddrs* i = list; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr || i->ifa_addr->sa_family != AF_INET) continue;
    if (reinterpret_cast<sockaddr_in*>(i->ifa_addr)->sin_addr.s_addr != htonl(0x0a090807)) continue;
    found = true;
    EXPECT_EQ(reinterpret_cast<sockaddr_in*>(i->ifa_netmask)->sin_addr.s_addr, htonl(0xfffff000));
  }
  freeifaddrs(list);
  EXPECT_TRUE(found);
  std::ostringstream routes;
  routes << std::ifstream("/proc/self/net/route").rdbuf();
  EXPECT_NE(routes.str().find("lo\t00000000\t0100090A"), std::string::npos) << routes.str();
  all->at(0).name = "nothing";
  EXPECT_FALSE(SetUpInterface(all->at(0), path.c_str()).ok());
}

}  // namespace
}  // namespace cube::agent
