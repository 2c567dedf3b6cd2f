// Connections across pauses, snapshots and restores.
#include <gtest/gtest.h>

#include "devices/vsock/vsock.h"
#include "devices/vsock/vsock_guest.h"

namespace cube::devices {
namespace {

using namespace vsock;
using vsock::testing::Packet;
using vsock::testing::VsockGuest;

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

// The guest may keep a connection that has ended until its program closes it.
TEST(Vsock, ARestoredMachineUsesOtherPorts) {
  VsockGuest guest;
  uint32_t before = 0, after = 0;
  UniqueFd client = guest.ConnectToGuest(5, &before);
  client.Reset();
  EXPECT_EQ(guest.Receive().header.op, kOpShutdown);
  guest.Send(VsockGuest::Make(kOpReset, 5, before));
  guest.driver().Pump();
  ASSERT_TRUE(guest.SaveAndRestore().ok());
  client = guest.ConnectToGuest(5, &after);
  EXPECT_NE(after, before);
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

}  // namespace
}  // namespace cube::devices
