// Connections made in both ways, and how the device is set up.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "devices/vsock/vsock.h"
#include "devices/vsock/vsock_guest.h"

namespace cube::devices {
namespace {

using namespace vsock;
using vsock::testing::Packet;
using vsock::testing::Pattern;
using vsock::testing::VsockGuest;

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
  EXPECT_EQ(message("/tmp/x", 0xffffffff), "guest CID 4294967295 is not one of 3 to 4294967294");
  EXPECT_EQ(message("", 3), "socket path of 0 bytes, 1 to 96 are possible");
  EXPECT_EQ(message(std::string(97, 'a'), 3), "socket path of 97 bytes, 1 to 96 are possible");
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
