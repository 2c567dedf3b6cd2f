// How connections end: by either side, by half, or by being given up.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "devices/vsock/vsock.h"
#include "devices/vsock/vsock_guest.h"

namespace cube::devices {
namespace {

using namespace vsock;
using vsock::testing::Packet;
using vsock::testing::Pattern;
using vsock::testing::VsockGuest;

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

}  // namespace
}  // namespace cube::devices
