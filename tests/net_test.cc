// A guest's network, as programs on both ends of a TAP see it: in a network namespace of the
// test's.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "tests/host_network.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

constexpr char kNet[] = "tap=cube0,ip=10.77.0.2/24,gw=10.77.0.1,dns=10.77.0.1";
// Every day; net_full_test moves 32 MiB.
const size_t kTransfer = strtoul(Env("CUBE_NET_MIB").c_str(), nullptr, 10) << 20;

void Must(const Status& status) { ASSERT_TRUE(status.ok()) << status.error().message(); }

class NetTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { Must(EnterNetworkWithTap("cube0", "10.77.0.1/24")); }

  // `size` bytes to the guest, which keeps them, and back again.
  static void Transfer(const std::string& net, size_t size, Finished* finished) {
    UniqueFd to_guest = ListenTcp(5000), from_guest = ListenTcp(5001);
    Process process(Vmm(
        {"--memory", "256", "--json", "--timeout", "250", "--net", net},
        {"/bin/sh", "-c", "nc 10.77.0.1 5000 < /dev/null > /tmp/f && nc 10.77.0.1 5001 < /tmp/f"}));
    std::string sent(size, '\0');
    uint32_t state = 1;
    for (char& c : sent) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
    {
      UniqueFd connection(accept4(to_guest.get(), nullptr, nullptr, SOCK_CLOEXEC));
      ASSERT_TRUE(connection.valid());
      for (size_t done = 0; done < size;) {
        ssize_t n = send(connection.get(), sent.data() + done, size - done, MSG_NOSIGNAL);
        ASSERT_GT(n, 0);
        done += static_cast<size_t>(n);
      }
    }
    UniqueFd connection(accept4(from_guest.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(connection.valid());
    std::string got;
    std::vector<char> buffer(1 << 16);
    for (ssize_t n; (n = read(connection.get(), buffer.data(), buffer.size())) > 0;) {
      got.append(buffer.data(), static_cast<size_t>(n));
    }
    EXPECT_TRUE(got == sent) << got.size() << " bytes came back";
    connection.Reset();
    *finished = process.Finish();
    EXPECT_EQ(finished->status, 0) << finished->out << finished->err;
  }
  // A counter of the device's in the result of a run with --json.
  static long Counter(const Finished& run, const std::string& name) {
    size_t at = run.out.find("\"" + name + "\":");
    return at == std::string::npos ? -1 : atol(run.out.c_str() + at + name.size() + 3);
  }
};

TEST_F(NetTest, PingsBothWays) {
  Process process(Vmm({"--net", kNet}, {"/bin/sh", "-c",
                                        "ping -c 3 -W 10 10.77.0.1 > /dev/null && "
                                        "cat /etc/resolv.conf && read line"}));
  EXPECT_EQ(process.WaitForOutput(), "nameserver 10.77.0.1\n");
  Finished ping =
      RunProcess({"/bin/busybox", "ping", "-c", "3", "-W", "10", "-s", "1400", "10.77.0.2"});
  EXPECT_EQ(ping.status, 0) << ping.out << ping.err;
  Finished run = process.Finish("go\n");
  EXPECT_EQ(run.status, 0) << run.err;
}

TEST_F(NetTest, TransfersComeBackIntact) {
  Finished run;
  Transfer(kNet, kTransfer, &run);
  // Segments of up to 64 KiB in both directions.
  EXPECT_GT(Counter(run, "rx_large"), 0);
  EXPECT_GT(Counter(run, "tx_large"), 0);
  EXPECT_GE(Counter(run, "rx_bytes"), static_cast<long>(kTransfer));
  EXPECT_GE(Counter(run, "tx_bytes"), static_cast<long>(kTransfer));
  EXPECT_EQ(Counter(run, "tx_invalid"), 0);
  EXPECT_EQ(Counter(run, "rx_unexpected"), 0);
}

TEST_F(NetTest, TransfersWithoutOffloadsToo) {
  Finished run;
  Transfer(std::string(kNet) + ",offloads=off", kTransfer, &run);
  EXPECT_GE(Counter(run, "rx_frames"), static_cast<long>(kTransfer / 1500));
  EXPECT_GE(Counter(run, "tx_frames"), static_cast<long>(kTransfer / 1500));
  EXPECT_EQ(Counter(run, "rx_too_long"), 0);
  EXPECT_EQ(Counter(run, "rx_large"), 0);
  EXPECT_EQ(Counter(run, "tx_large"), 0);
}

TEST_F(NetTest, LimitsAreKept) {
  Finished run;
  Transfer(std::string(kNet) + ",bps=20000", 100000, &run);
  EXPECT_GT(Counter(run, "rx_limited"), 0);
  EXPECT_GT(Counter(run, "tx_limited"), 0);
}

TEST_F(NetTest, ErrorsNameTheOption) {
  Finished run = RunProcess(Vmm({"--net", "tap=a/b"}, {"/bin/true"}));
  EXPECT_EQ(run.status, 125);
  EXPECT_EQ(run.err, "cube-vmm: --net: 'a/b' is not an interface's name of 1 to 15 characters\n");
  run = RunProcess(Vmm({"--net", "tap=cube0,mtu=9"}, {"/bin/true"}));
  EXPECT_EQ(run.status, 125);
  EXPECT_NE(run.err.find("--net: 'mtu=9' is not one of"), std::string::npos) << run.err;
  EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1);
}

}  // namespace
}  // namespace cube::testing
