#include "vmm/cli/net_option.h"

#include <gtest/gtest.h>

namespace cube::vmm {
namespace {

TEST(NetOption, TakesEveryWord) {
  auto option = NetOption::Parse(
      "tap=tap0,mac=02:aB:00:01:02:03,mtu=1400,ip=10.0.0.2/24,gw=10.0.0.1,dns=1.1.1.1,rx-bps=1000,"
      "tx-bps=2000,pps=30");
  ASSERT_TRUE(option.ok()) << option.error().message();
  EXPECT_EQ(option->tap, "tap0");
  EXPECT_EQ(option->device.mac, (devices::MacAddress{2, 0xab, 0, 1, 2, 3}));
  EXPECT_EQ(option->device.mtu, 1400u);
  EXPECT_EQ(option->device.receive.bytes_per_second, 1000u);
  EXPECT_EQ(option->device.transmit.bytes_per_second, 2000u);
  EXPECT_EQ(option->device.receive.operations_per_second, 30u);
  EXPECT_EQ(option->device.transmit.operations_per_second, 30u);
  EXPECT_EQ(NetKernelArgument({*option}), "cube_net=eth0,10.0.0.2/24,10.0.0.1,1.1.1.1");
}

TEST(NetOption, TheFabricsOwn) {
  auto option = NetOption::Parse("cube");
  ASSERT_TRUE(option.ok()) << option.error().message();
  EXPECT_TRUE(option->later);
  EXPECT_FALSE(option->own_mac);
  EXPECT_EQ(option->device.mac, (devices::MacAddress{2, 0xcb, 0, 0, 0, 0x15}));
  EXPECT_EQ(NetKernelArgument({*option}),
            "cube_net=eth0,169.254.0.21/30,169.254.0.22,169.254.0.22;"
            "eth0,fdcb:6375:6265::15/126,fdcb:6375:6265::16,");
  EXPECT_FALSE(NetOption::Parse("cube,tap=a").ok());
  EXPECT_FALSE(NetOption::Parse("cube,fd=7").ok());
}

TEST(NetOption, AnAddressOfItsOwnUnlessGiven) {
  auto one = NetOption::Parse("tap=a"), other = NetOption::Parse("fd=9");
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_NE(one->device.mac, other->device.mac);
  EXPECT_EQ(one->device.mac[0] & 3, 2);
  EXPECT_EQ(other->fd, 9);
  EXPECT_EQ(NetKernelArgument({*one, *other}), "");
}

TEST(NetOption, InterfacesAreNumberedInOrder) {
  auto none = NetOption::Parse("tap=a"), some = NetOption::Parse("tap=b,ip=10.1.0.2/16");
  ASSERT_TRUE(none.ok() && some.ok());
  EXPECT_EQ(NetKernelArgument({*none, *some, *some}),
            "cube_net=eth1,10.1.0.2/16,,;eth2,10.1.0.2/16,,");
}

TEST(NetOption, ErrorsNameTheWordAtFault) {
  for (const char* word : {"",
                           "tap",
                           "tap=",
                           "tun=x",
                           "mac=1:2:3:4:5:6",
                           "mac=01:00:00:00:00:01",
                           "mac=02:00:00:00:00:0g",
                           "mac=02:00:00:00:00:001",
                           "mtu=67",
                           "mtu=65536",
                           "mtu=1e3",
                           "ip=10.0.0.2",
                           "ip=10.0.0.2/33",
                           "ip=10.0.0/24",
                           "gw=x",
                           "dns=1.1.1.1/8",
                           "bps=-1",
                           "pps=99999999999999999999",
                           "fd=2",
                           "fd=x",
                           "mtu=1400 "}) {
    auto option = NetOption::Parse("tap=a," + std::string(word));
    ASSERT_FALSE(option.ok()) << word;
    EXPECT_NE(option.error().message().find("--net: '" + std::string(word) + "' is not one of"),
              std::string::npos)
        << option.error().message();
  }
  EXPECT_FALSE(NetOption::Parse("mtu=1400").ok());
  EXPECT_FALSE(NetOption::Parse("tap=a,fd=5").ok());
  EXPECT_FALSE(NetOption::Parse("tap=a,gw=10.0.0.1").ok());
}

}  // namespace
}  // namespace cube::vmm
