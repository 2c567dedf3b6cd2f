#include "guestkernel/agent/network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/unique_fd.h"

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
        "eth0,fd00::2/129,,", "eth0,fd00::2/64,10.0.0.1,", "eth0,10.0.0.2/24,fd00::1,",
        "eth0,fd00:::2/64,,", "eth0,10.0.0.2/24,,,z", "a-name-of-16-chr,10.0.0.2/24", ";"}) {
    EXPECT_FALSE(ParseNetwork(text).ok()) << text;
  }
}

TEST(Network, ParsesIpv6) {
  auto all = ParseNetwork("eth0,10.0.0.2/24,10.0.0.1,;eth0,fd00::2/126,fd00::1,");
  ASSERT_TRUE(all.ok()) << all.error().message();
  ASSERT_EQ(all->size(), 2u);
  EXPECT_FALSE(all->at(0).ipv6);
  EXPECT_TRUE(all->at(1).ipv6);
  EXPECT_EQ(all->at(1).prefix, 126);
  EXPECT_EQ(all->at(1).address6.s6_addr[15], 2);
  EXPECT_EQ(all->at(1).gateway6.s6_addr[15], 1);
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

// On a TAP, for routes of IPv6 lead nowhere by loopback.
TEST(Network, SetsUpIpv6) {
  ASSERT_EQ(unshare(CLONE_NEWNET), 0) << "has to be root";
  UniqueFd tap(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ifreq request = {};
  strcpy(request.ifr_name, "eth0");
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  ASSERT_EQ(ioctl(tap.get(), TUNSETIFF, &request), 0);
  auto all = ParseNetwork("eth0,fd00::5/126,fd00::6,");
  ASSERT_TRUE(all.ok());
  Status set = SetUpInterface(all->at(0), "/dev/null");
  ASSERT_TRUE(set.ok()) << set.error().message();
  std::string line, address, route;
  for (std::ifstream file("/proc/self/net/if_inet6"); std::getline(file, line);) {
    if (line.starts_with("fd000000000000000000000000000005 ")) address = line;
  }
  EXPECT_NE(address.find(" 7e 00 "), std::string::npos) << address;
  // Nobody is asked whether it is his.
  std::ifstream("/proc/sys/net/ipv6/conf/eth0/accept_dad") >> line;
  EXPECT_EQ(line, "0");
  for (std::ifstream file("/proc/self/net/ipv6_route"); std::getline(file, line);) {
    if (line.find(" fd000000000000000000000000000006 00000400 ") != std::string::npos) route = line;
  }
  EXPECT_TRUE(route.starts_with("00000000000000000000000000000000 00 ")) << route;
  all->at(0).name = "nothing";
  EXPECT_FALSE(SetUpInterface(all->at(0), "/dev/null").ok());
}

}  // namespace
}  // namespace cube::agent
