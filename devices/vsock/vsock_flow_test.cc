// Credit, back-pressure and limits.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "devices/vsock/vsock.h"
#include "devices/vsock/vsock_guest.h"

namespace cube::devices {
namespace {

using namespace vsock;
using vsock::testing::Packet;
using vsock::testing::Pattern;
using vsock::testing::VsockGuest;

// ---- flow control

// Bytes the host sends beyond the guest's credit stay in its socket.
TEST(Vsock, TheGuestsCreditIsKept) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  std::string all = Pattern(100000);
  guest.Write(client, all);
  std::string got = guest.ReceiveData(65536);
  EXPECT_EQ(got.size(), 65536u);
  // It is asked for more once, and not again though it has none.
  EXPECT_EQ(guest.Receive().header.op, kOpCreditRequest);
  Header update = VsockGuest::Make(kOpCreditUpdate, 5, port);
  guest.Send(update);
  EXPECT_FALSE(guest.HasPacket());
  update.fwd_cnt = 65536;
  guest.Send(update);
  got += guest.ReceiveData(all.size() - got.size());
  EXPECT_TRUE(got == all);
}

// A host that does not read makes the guest run out of credit, and no more; reading gives it back.
TEST(Vsock, ASlowHostStopsTheGuest) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  std::string all = Pattern(1 << 20), got;
  uint32_t sent = 0, forwarded = 0;
  int stops = 0;
  while (sent < all.size()) {
    uint32_t credit = Vsock::kLargeBuffer - (sent - forwarded);
    if (credit == 0) {
      ++stops;
      while (credit == 0) {
        got += guest.Read(client, 32 * 1024);
        guest.driver().Pump();
        if (auto update = guest.TryReceive()) {
          ASSERT_EQ(update->header.op, kOpCreditUpdate);
          forwarded = update->header.fwd_cnt;
          credit = Vsock::kLargeBuffer - (sent - forwarded);
        }
      }
    }
    Header header = VsockGuest::Make(kOpData, 5, port);
    header.len = std::min({credit, 65536u, static_cast<uint32_t>(all.size()) - sent});
    guest.Send(header, std::string_view(all).substr(sent, header.len));
    guest.driver().Pump();
    sent += header.len;
  }
  got += guest.Read(client, all.size() - got.size());
  EXPECT_TRUE(got == all);
  EXPECT_GT(stops, 0);
}

TEST(Vsock, AQuestionForCreditIsAnswered) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  guest.Send(VsockGuest::Make(kOpCreditRequest, 5, port));
  Packet update = guest.Receive();
  EXPECT_EQ(update.header.op, kOpCreditUpdate);
  EXPECT_EQ(update.header.buf_alloc, Vsock::kLargeBuffer);
}

// Nothing is lost while the driver has no receive buffers, and nothing spins.
TEST(Vsock, PacketsWaitForReceiveBuffers) {
  VsockGuest guest(60'000'000'000, 2);
  guest.set_refill(false);
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);  // takes one
  guest.Write(client, Pattern(10000));
  EXPECT_EQ(guest.Receive().payload.size(), 4096u);
  guest.Send(VsockGuest::Make(kOpRequest, 8, 8));  // to be refused
  guest.driver().Pump();
  auto idle = guest.driver().loop().RunOnce(0);
  EXPECT_TRUE(idle.ok());
  EXPECT_FALSE(guest.HasPacket());
  guest.AddReceiveBuffers(1);
  EXPECT_EQ(guest.Receive().header.op, kOpReset);
  guest.AddReceiveBuffers(2);
  EXPECT_EQ(guest.ReceiveData(5904), Pattern(10000).substr(4096));
}

// A burst fills many buffers, and the driver is told once.
TEST(Vsock, ABatchIsOneInterrupt) {
  VsockGuest guest(60'000'000'000, 32, virtio::kFeatureVersion1);
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  guest.driver().Pump();
  guest.driver().TakeInterrupts();
  guest.Write(client, Pattern(60000));
  guest.driver().Pump();
  EXPECT_EQ(guest.driver().TakeInterrupts(), 1u);
  EXPECT_TRUE(guest.ReceiveData(60000) == Pattern(60000));
}

TEST(Vsock, MegabytesBothWaysAtOnce) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  constexpr uint32_t kSize = 2 << 20;
  std::string down = Pattern(kSize, 1), up = Pattern(kSize, 2), got_down, got_up;
  uint32_t written = 0, sent = 0, forwarded = 0;
  while (got_down.size() < kSize || got_up.size() < kSize) {
    if (written < kSize) {
      ssize_t n = send(client.get(), down.data() + written, kSize - written, MSG_DONTWAIT);
      if (n > 0) written += static_cast<uint32_t>(n);
    }
    uint32_t credit = Vsock::kLargeBuffer - (sent - forwarded);
    Header header = VsockGuest::Make(kOpData, 5, port);
    header.len = std::min({credit, 32768u, kSize - sent});
    header.fwd_cnt = static_cast<uint32_t>(got_down.size());
    guest.Send(header, std::string_view(up).substr(sent, header.len));
    sent += header.len;
    guest.driver().Pump();
    char bytes[100000];
    ssize_t n = recv(client.get(), bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0) got_up.append(bytes, static_cast<size_t>(n));
    while (auto packet = guest.TryReceive()) {
      forwarded = packet->header.fwd_cnt;
      got_down += packet->payload;
    }
  }
  EXPECT_TRUE(got_down == down);
  EXPECT_TRUE(got_up == up);
}

// ---- bounds

// Runs with the descriptors that the most connections need.
class VsockLimits : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
    rlimit limit = before_;
    limit.rlim_cur = limit.rlim_max;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  }
  void TearDown() override { setrlimit(RLIMIT_NOFILE, &before_); }
  rlimit before_ = {};
};

TEST_F(VsockLimits, ConnectionsHaveALimit) {
  ASSERT_GE(before_.rlim_max, 4096u) << "this test needs that many descriptors";
  VsockGuest guest;
  UniqueFd listener = guest.Listen(10, 64);
  std::vector<UniqueFd> servers;
  for (uint32_t i = 0; i < Vsock::kMaxConnections; ++i) {
    servers.push_back(guest.ConnectToHost(listener, i, 10));
  }
  EXPECT_EQ(guest.Metric("connections"), Vsock::kMaxConnections);
  guest.Send(VsockGuest::Make(kOpRequest, 2000, 10));
  EXPECT_EQ(guest.Receive().header.op, kOpReset);
  UniqueFd client = guest.Connect(guest.path());
  EXPECT_EQ(guest.Read(client, 100), "ERR 1024 connections are open, the most there can be\n");
  EXPECT_EQ(guest.Metric("refused"), 2u);
  // One less, and there is room again.
  guest.Send(VsockGuest::Make(kOpReset, 0, 10));
  guest.driver().Pump();
  uint32_t port = 0;
  guest.ConnectToGuest(5, &port);
}

// Without a descriptor for it, a client waits until there is one.
TEST_F(VsockLimits, ClientsWaitWhileDescriptorsAreOut) {
  VsockGuest guest;
  UniqueFd client = guest.Connect(guest.path());
  guest.Write(client, "CONNECT 5\n");
  rlimit none = before_;
  none.rlim_cur = 3;  // numbers below are taken
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  guest.driver().Pump();
  auto stays_idle = guest.HasPacket();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0);
  EXPECT_FALSE(stays_idle);
  EXPECT_EQ(guest.Receive().header.op, kOpRequest);
}

}  // namespace
}  // namespace cube::devices
