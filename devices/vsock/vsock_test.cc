#include "devices/vsock/vsock.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "devices/vsock/vsock_guest.h"

namespace cube::devices {
namespace {

using namespace vsock;
using vsock::testing::Packet;
using vsock::testing::VsockGuest;

std::string Pattern(size_t size, uint32_t seed = 1) {
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24);
  return bytes;
}

TEST(Vsock, TellsTheGuestItsCid) {
  VsockGuest guest;
  auto config = guest.driver().ReadConfig(0, 8);
  EXPECT_EQ(config, (std::vector<uint8_t>{3, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(guest.driver().ReadConfig(8, 4), std::vector<uint8_t>(4));
  EXPECT_EQ(guest.driver().OfferedFeatures() & 0xffffff, 0u);  // streams only
}

TEST(Vsock, AHostClientTalksToTheGuest) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(52, &port);
  EXPECT_GE(port, 1u << 30);
  guest.Write(client, "hello");
  Packet packet = guest.Receive();
  EXPECT_EQ(packet.header.src_cid, kHostCid);
  EXPECT_EQ(packet.header.dst_cid, VsockGuest::kCid);
  EXPECT_EQ(packet.header.src_port, port);
  EXPECT_EQ(packet.header.dst_port, 52u);
  EXPECT_EQ(packet.header.type, kTypeStream);
  EXPECT_EQ(packet.header.op, kOpData);
  EXPECT_EQ(packet.header.buf_alloc, Vsock::kLargeBuffer);
  EXPECT_EQ(packet.payload, "hello");
  guest.Send(VsockGuest::Make(kOpData, 52, port), "there");  // len is 0: nothing of it counts
  Header header = VsockGuest::Make(kOpData, 52, port);
  header.len = 5;
  guest.Send(header, "there");
  EXPECT_EQ(guest.Read(client, 5), "there");
  EXPECT_EQ(guest.Metric("from_host"), 1u);
  EXPECT_EQ(guest.Metric("bytes_to_guest"), 5u);
  EXPECT_EQ(guest.Metric("bytes_from_guest"), 5u);
}

TEST(Vsock, BytesRightBehindTheLineAreTheGuests) {
  VsockGuest guest;
  UniqueFd client = guest.Connect(guest.path());
  guest.Write(client, "CONN");
  guest.driver().Pump();
  guest.Write(client, "ECT 7\nfirst bytes");
  Packet request = guest.Receive();
  ASSERT_EQ(request.header.op, kOpRequest);
  EXPECT_EQ(request.header.dst_port, 7u);
  guest.Send(VsockGuest::Make(kOpResponse, 7, request.header.src_port));
  EXPECT_EQ(guest.Receive().payload, "first bytes");
}

TEST(Vsock, ARefusedPortEndsTheClient) {
  VsockGuest guest;
  UniqueFd client = guest.Connect(guest.path());
  guest.Write(client, "CONNECT 99\n");
  Packet request = guest.Receive();
  ASSERT_EQ(request.header.op, kOpRequest);
  guest.Send(VsockGuest::Make(kOpReset, 99, request.header.src_port));
  EXPECT_TRUE(guest.Ended(client));
  EXPECT_EQ(guest.Metric("connections"), 0u);
  EXPECT_EQ(guest.Metric("refused"), 1u);
  EXPECT_FALSE(guest.HasPacket());
}

TEST(Vsock, WhatIsNotAConnectLineIsRefused) {
  VsockGuest guest;
  for (const char* line : {"GET / HTTP/1.1\r\n", "CONNECT\n", "CONNECT x\n", "CONNECT 1 2\n",
                           "CONNECT -1\n", "CONNECT 4294967296\n", "\n",
                           "CONNECT 00000000000000000001\n", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}) {
    SCOPED_TRACE(line);
    UniqueFd client = guest.Connect(guest.path());
    guest.Write(client, line);
    EXPECT_EQ(guest.Read(client, 28), "ERR expected CONNECT <port>\n");
    EXPECT_TRUE(guest.Ended(client));
  }
  for (const char* line : {"CONNECT 4294967295\n", "CONNECT 5\r\n"}) {
    UniqueFd client = guest.Connect(guest.path());
    guest.Write(client, line);
    EXPECT_EQ(guest.ReceiveOp(kOpRequest).header.op, kOpRequest);
  }
}

TEST(Vsock, BeforeTheDriverIsReadyClientsAreTurnedAway) {
  VsockGuest guest;
  guest.driver().Write(virtio::kMmioStatus, 0);
  UniqueFd client = guest.Connect(guest.path());
  guest.Write(client, "CONNECT 5\n");
  EXPECT_TRUE(guest.Ended(client));
}

TEST(Vsock, TheGuestConnectsToTheHost) {
  VsockGuest guest;
  UniqueFd listener = guest.Listen(1234);
  UniqueFd server = guest.ConnectToHost(listener, 40000, 1234);
  Header header = VsockGuest::Make(kOpData, 40000, 1234);
  header.len = 3;
  guest.Send(header, "abc");
  EXPECT_EQ(guest.Read(server, 3), "abc");
  guest.Write(server, "def");
  EXPECT_EQ(guest.Receive().payload, "def");
  EXPECT_EQ(guest.Metric("from_guest"), 1u);
}

TEST(Vsock, APortWithoutListenerIsRefused) {
  VsockGuest guest;
  guest.Send(VsockGuest::Make(kOpRequest, 40000, 9));
  Packet reply = guest.Receive();
  EXPECT_EQ(reply.header.op, kOpReset);
  EXPECT_EQ(reply.header.src_port, 9u);
  EXPECT_EQ(reply.header.dst_port, 40000u);
  EXPECT_EQ(guest.Metric("connections"), 0u);
}

TEST(Vsock, AListenerWithoutRoomIsTriedAgain) {
  VsockGuest guest;
  UniqueFd listener = guest.Listen(10, 0);
  UniqueFd filler = guest.Connect(guest.path(10));  // a backlog of 0 holds one
  guest.Send(VsockGuest::Make(kOpRequest, 1, 10));
  EXPECT_FALSE(guest.HasPacket());
  EXPECT_EQ(guest.Metric("connections"), 1u);
  UniqueFd accepted(accept(listener.get(), nullptr, nullptr));
  EXPECT_EQ(guest.Receive().header.op, kOpResponse);
}

TEST(Vsock, AListenerThatNeverHasRoomIsGivenUp) {
  VsockGuest guest(20'000'000);
  UniqueFd listener = guest.Listen(10, 0);
  UniqueFd filler = guest.Connect(guest.path(10));
  guest.Send(VsockGuest::Make(kOpRequest, 1, 10));
  EXPECT_EQ(guest.Receive().header.op, kOpReset);
}

// ---- time limits

TEST(Vsock, AGuestThatDoesNotAnswerIsGivenUp) {
  VsockGuest guest(1'000'000);
  UniqueFd client = guest.Connect(guest.path());
  guest.Write(client, "CONNECT 5\n");
  ASSERT_EQ(guest.Receive().header.op, kOpRequest);
  EXPECT_TRUE(guest.Ended(client));
  EXPECT_EQ(guest.Receive().header.op, kOpReset);
  EXPECT_EQ(guest.Metric("timeouts"), 1u);
}

TEST(Vsock, AClientThatSaysNothingIsGivenUp) {
  VsockGuest guest(1'000'000);
  UniqueFd client = guest.Connect(guest.path());
  EXPECT_EQ(guest.Read(client, 30), "ERR no CONNECT <port> in time\n");
  EXPECT_TRUE(guest.Ended(client));
}

TEST(Vsock, AClientThatLeavesBeforeTheAnswerIsForgotten) {
  VsockGuest guest;
  UniqueFd client = guest.Connect(guest.path());
  guest.Write(client, "CONNECT 5\n");
  ASSERT_EQ(guest.Receive().header.op, kOpRequest);
  client.Reset();
  EXPECT_EQ(guest.Receive().header.op, kOpReset);
  EXPECT_EQ(guest.Metric("connections"), 0u);
}

// ---- ends

TEST(Vsock, TheHostEndsItsHalf) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  guest.Write(client, "all");
  shutdown(client.get(), SHUT_WR);
  EXPECT_EQ(guest.ReceiveData(3), "all");
  Packet end = guest.Receive();
  EXPECT_EQ(end.header.op, kOpShutdown);
  EXPECT_EQ(end.header.flags, kShutdownSend);
  // The other half still works, and then the guest ends it.
  Header header = VsockGuest::Make(kOpData, 5, port);
  header.len = 5;
  guest.Send(header, "reply");
  EXPECT_EQ(guest.Read(client, 5), "reply");
  header = VsockGuest::Make(kOpShutdown, 5, port);
  header.flags = kShutdownBoth;
  guest.Send(header);
  EXPECT_EQ(guest.Receive().header.op, kOpReset);
  EXPECT_TRUE(guest.Ended(client));
  EXPECT_EQ(guest.Metric("connections"), 0u);
}

TEST(Vsock, TheGuestEndsItsHalf) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  Header header = VsockGuest::Make(kOpShutdown, 5, port);
  header.flags = kShutdownSend;
  guest.Send(header);
  EXPECT_TRUE(guest.Ended(client));
  guest.Write(client, "still");
  EXPECT_EQ(guest.ReceiveData(5), "still");
  client.Reset();
  Packet end = guest.Receive();
  EXPECT_EQ(end.header.op, kOpShutdown);
  EXPECT_EQ(end.header.flags, kShutdownBoth);
  guest.Send(VsockGuest::Make(kOpReset, 5, port));
  guest.driver().Pump();
  EXPECT_EQ(guest.Metric("connections"), 0u);
}

TEST(Vsock, AGuestThatDoesNotReadAnyMoreStopsTheHostsWrites) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  Header header = VsockGuest::Make(kOpShutdown, 5, port);
  header.flags = kShutdownReceive;
  guest.Send(header);
  guest.driver().Pump();
  EXPECT_EQ(send(client.get(), "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
  header = VsockGuest::Make(kOpData, 5, port);
  header.len = 1;
  guest.Send(header, "y");
  EXPECT_EQ(guest.Read(client, 1), "y");
  client.Reset();
  EXPECT_EQ(guest.Receive().header.flags, kShutdownBoth);
}

// What the client sent before it left arrives, and one packet tells of the end.
TEST(Vsock, AKilledClientIsNoticed) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  guest.Write(client, "last words");
  client.Reset();
  EXPECT_EQ(guest.ReceiveData(10), "last words");
  Packet end = guest.Receive();
  EXPECT_EQ(end.header.op, kOpShutdown);
  EXPECT_EQ(end.header.flags, kShutdownBoth);
  // Whatever the guest still sends is nobody's.
  Header header = VsockGuest::Make(kOpData, 5, port);
  header.len = 1;
  guest.Send(header, "y");
  guest.driver().Pump();
  EXPECT_EQ(guest.Metric("connections"), 1u);
  guest.Send(VsockGuest::Make(kOpReset, 5, port));
  guest.driver().Pump();
  EXPECT_EQ(guest.Metric("connections"), 0u);
}

TEST(Vsock, AGuestThatDoesNotConfirmTheEndIsReset) {
  VsockGuest guest(50'000'000);
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  client.Reset();
  EXPECT_EQ(guest.Receive().header.op, kOpShutdown);
  EXPECT_EQ(guest.Receive().header.op, kOpReset);
  EXPECT_EQ(guest.Metric("connections"), 0u);
}

// The guest has sent everything and closed; a host that reads slowly still gets it all.
TEST(Vsock, WhatTheGuestSentBeforeItClosedArrives) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  std::string all;
  Header header = VsockGuest::Make(kOpData, 5, port);
  for (uint32_t i = 0; i < 6; ++i) {
    std::string piece = Pattern(65536, i);
    header.len = 65536;
    guest.Send(header, piece);
    guest.driver().Pump();
    all += piece;
  }
  header = VsockGuest::Make(kOpShutdown, 5, port);
  header.flags = kShutdownBoth;
  guest.Send(header);
  EXPECT_EQ(guest.ReceiveOp(kOpReset).header.op, kOpReset);
  EXPECT_EQ(guest.Metric("connections"), 0u);
  EXPECT_TRUE(guest.Read(client, all.size()) == all);
  EXPECT_TRUE(guest.Ended(client));
}

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

TEST(Vsock, WorksWithoutEventIndices) {
  VsockGuest guest(60'000'000'000, 2, virtio::kFeatureVersion1);
  guest.set_refill(false);
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  guest.Write(client, Pattern(10000));
  std::string got = guest.ReceiveData(4096);
  guest.AddReceiveBuffers(2);
  got += guest.ReceiveData(5904);
  EXPECT_TRUE(got == Pattern(10000));
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

// ---- pause, saved state

TEST(Vsock, APauseKeepsConnections) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  guest.driver().transport().Quiesce();
  guest.Write(client, "while paused");
  Header header = VsockGuest::Make(kOpData, 5, port);
  header.len = 4;
  guest.Send(header, "also");
  EXPECT_FALSE(guest.HasPacket());
  StateWriter state;
  EXPECT_TRUE(guest.driver().transport().Save(&state).ok());
  guest.driver().transport().Resume();
  EXPECT_EQ(guest.ReceiveData(12), "while paused");
  EXPECT_EQ(guest.Read(client, 4), "also");
}

TEST(Vsock, ARestoreWithoutConnectionsDoesNotWakeTheGuest) {
  VsockGuest guest;
  guest.AddEventBuffers(4);
  guest.driver().TakeInterrupts();
  ASSERT_TRUE(guest.SaveAndRestore().ok());
  guest.driver().Pump();
  EXPECT_EQ(guest.driver().TakeInterrupts(), 0u);
  EXPECT_FALSE(guest.driver().TakeUsed(kEventQueue));
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
}

// Restored mid-traffic, the guest is told to reset its sockets; clients wait until it has.
TEST(Vsock, ARestoreResetsConnections) {
  VsockGuest guest;
  guest.AddEventBuffers(4);
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  guest.Write(client, "lost");
  guest.driver().Pump();
  Header header = VsockGuest::Make(kOpData, 5, port);
  header.len = 4;
  guest.Send(header, "lost");  // pending when the state is saved
  ASSERT_TRUE(guest.SaveAndRestore().ok());
  EXPECT_TRUE(guest.Ended(client));
  auto used = guest.driver().WaitUsed(kEventQueue);
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, sizeof(Event));
  UniqueFd next = guest.Connect(guest.path());
  guest.Write(next, "CONNECT 6\n");
  EXPECT_EQ(guest.Receive().payload, "lost");      // from before
  EXPECT_EQ(guest.Receive().header.op, kOpReset);  // to what the guest still sent
  EXPECT_FALSE(guest.HasPacket());
  guest.AddEventBuffers(1);  // it has handled the event
  EXPECT_EQ(guest.Receive().header.op, kOpRequest);
  EXPECT_FALSE(guest.driver().TakeUsed(kEventQueue));
}

TEST(Vsock, ADriverWithoutEventBuffersIsToldWhenItHasOne) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  ASSERT_TRUE(guest.SaveAndRestore().ok());
  ASSERT_TRUE(guest.SaveAndRestore().ok());  // the event is still due
  guest.AddEventBuffers(1);
  EXPECT_TRUE(guest.driver().WaitUsed(kEventQueue));
}

TEST(Vsock, ADriverThatDoesNotHandleTheEventHoldsClientsUpForSomeTimeOnly) {
  VsockGuest guest(50'000'000);
  guest.AddEventBuffers(1);
  UniqueFd listener = guest.Listen(10);
  UniqueFd server = guest.ConnectToHost(listener, 1, 10);
  ASSERT_TRUE(guest.SaveAndRestore().ok());
  UniqueFd next = guest.Connect(guest.path());
  guest.Write(next, "CONNECT 6\n");
  EXPECT_EQ(guest.Receive().header.op, kOpRequest);
}

TEST(Vsock, ANewCidIsTold) {
  VsockGuest guest;
  guest.AddEventBuffers(1);
  ASSERT_TRUE(guest.SaveAndRestore(77).ok());
  EXPECT_TRUE(guest.driver().WaitUsed(kEventQueue));
  EXPECT_EQ(guest.driver().ReadConfig(0, 1), std::vector<uint8_t>{77});
}

TEST(Vsock, TheDriverMayStartAgain) {
  VsockGuest guest;
  uint32_t port = 0;
  UniqueFd client = guest.ConnectToGuest(5, &port);
  guest.Restart();
  EXPECT_TRUE(guest.Ended(client));
  EXPECT_EQ(guest.Metric("connections"), 0u);
  client = guest.ConnectToGuest(5, &port);
  guest.Write(client, "x");
  EXPECT_EQ(guest.ReceiveData(1), "x");
}

// ---- configuration

TEST(Vsock, ConfigurationIsChecked) {
  auto loop = vmm::EventLoop::Create();
  ASSERT_TRUE(loop.ok());
  auto message = [&](std::string path, uint64_t cid) {
    VsockConfig config;
    config.path = std::move(path);
    config.guest_cid = cid;
    auto device = Vsock::Create(std::move(config), &*loop);
    return device.ok() ? "" : device.error().message();
  };
  EXPECT_EQ(message("/tmp/x", 2), "guest CID 2 is not one of 3 to 4294967294");
  EXPECT_EQ(message("/tmp/x", 0xffffffff),
            "guest CID 4294967295 is not one of 3 to 4294967294");
  EXPECT_EQ(message("", 3), "socket path of 0 bytes, 1 to 96 are possible");
  EXPECT_EQ(message(std::string(97, 'a'), 3),
            "socket path of 97 bytes, 1 to 96 are possible");
  EXPECT_EQ(message("/no/such/folder/socket", 3),
            "cannot bind /no/such/folder/socket: No such file or directory");
}

TEST(Vsock, AListenerMayBeGiven) {
  std::string folder = "/tmp/vsock-given-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  {
    auto bound = UnixListener::Bind(folder + "/socket");
    ASSERT_TRUE(bound.ok());
    virtio::fake::FakeDriver driver([&](vmm::EventLoop* loop) {
      VsockConfig config;
      config.listener.Reset(dup(bound->fd()));
      return Vsock::Create(std::move(config), loop).value();
    });
    driver.Start();
    UniqueFd client = VsockGuest::Connect(folder + "/socket");
    VsockGuest::Write(client, "CONNECT 5\n");
    driver.AddRequest(kRxQueue, {}, {4096}, nullptr);
    driver.Kick(kRxQueue);
    EXPECT_TRUE(driver.WaitUsed(kRxQueue));
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace cube::devices
