// Drivers and clients that do what none should.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "devices/vsock/vsock.h"
#include "devices/vsock/vsock_guest.h"

namespace cube::devices {
namespace {

using namespace vsock;
using vsock::testing::Packet;
using vsock::testing::VsockGuest;

class VsockHostile : public ::testing::Test {
 protected:
  // A connection of the guest's port 5 to the host's port 10, and one beside it that must not be
  // touched by what happens to the first.
  void SetUp() override {
    listener_ = guest_.Listen(10);
    server_ = guest_.ConnectToHost(listener_, 5, 10);
    bystander_ = guest_.ConnectToHost(listener_, 6, 10);
  }
  void TearDown() override {
    EXPECT_EQ(guest_.driver().transport().failure(), "");
    guest_.Write(bystander_, "still here");
    EXPECT_EQ(guest_.ReceiveData(10), "still here");
  }
  static Header Make(uint16_t op) { return VsockGuest::Make(static_cast<Operation>(op), 5, 10); }
  // The connection was reset, for both ends.
  void ExpectReset() {
    Packet reply = guest_.Receive();
    EXPECT_EQ(reply.header.op, kOpReset);
    EXPECT_EQ(reply.header.src_port, 10u);
    EXPECT_EQ(reply.header.dst_port, 5u);
    EXPECT_TRUE(guest_.Ended(server_));
    EXPECT_EQ(guest_.Metric("connections"), 1u);
  }

  VsockGuest guest_;
  UniqueFd listener_, server_, bystander_;
};

TEST_F(VsockHostile, LengthsThatLie) {
  Header header = Make(kOpData);
  header.len = 101;
  guest_.Send(header, std::string(100, 'a'));
  ExpectReset();
  EXPECT_EQ(guest_.Metric("malformed"), 1u);
}

TEST_F(VsockHostile, TheLargestLength) {
  Header header = Make(kOpData);
  header.len = 0xffffffff;
  guest_.Send(header, "a");
  ExpectReset();
}

TEST_F(VsockHostile, HeadersThatAreNotWhole) {
  const uint8_t bytes[43] = {3};
  for (size_t size : {1, 8, 43}) {
    guest_.driver().AddRequest(kTxQueue, std::span(bytes, size), {}, nullptr);
  }
  guest_.driver().AddRequest(kTxQueue, {}, {64}, nullptr);  // nothing to be read at all
  guest_.driver().Kick(kTxQueue);
  guest_.driver().Pump();
  EXPECT_EQ(guest_.Metric("malformed"), 4u);
  EXPECT_FALSE(guest_.HasPacket());
}

TEST_F(VsockHostile, UnknownOperations) {
  guest_.Send(Make(8));
  ExpectReset();
  guest_.Send(VsockGuest::Make(static_cast<Operation>(0xffff), 77, 78));
  EXPECT_EQ(guest_.Receive().header.op, kOpReset);
}

TEST_F(VsockHostile, TheInvalidOperation) {
  guest_.Send(Make(kOpInvalid));
  ExpectReset();
}

TEST_F(VsockHostile, UnknownTypes) {
  Header header = Make(kOpData);
  header.type = 2;
  guest_.Send(header);
  Packet reply = guest_.Receive();
  EXPECT_EQ(reply.header.op, kOpReset);
  EXPECT_EQ(reply.header.type, 2u);
  header.op = kOpReset;
  guest_.Send(header);  // never answered
  EXPECT_FALSE(guest_.HasPacket());
  EXPECT_EQ(guest_.Metric("connections"), 2u);
}

TEST_F(VsockHostile, ForeignSources) {
  Header header = Make(kOpReset);
  for (uint64_t cid : {0ull, 1ull, 2ull, 4ull, 0xffffffffull, 0x100000003ull}) {
    header.src_cid = cid;
    guest_.Send(header);
  }
  EXPECT_FALSE(guest_.HasPacket());
  EXPECT_EQ(guest_.Metric("malformed"), 6u);
  EXPECT_EQ(guest_.Metric("connections"), 2u);
}

TEST_F(VsockHostile, DestinationsThatAreNotTheHost) {
  Header header = Make(kOpRequest);
  header.dst_cid = 5;
  guest_.Send(header);
  Packet reply = guest_.Receive();
  EXPECT_EQ(reply.header.op, kOpReset);
  EXPECT_EQ(reply.header.src_cid, 5u);
  header.dst_cid = 0x100000002ull;
  guest_.Send(header);
  EXPECT_EQ(guest_.Receive().header.op, kOpReset);
  EXPECT_EQ(guest_.Metric("connections"), 2u);
}

TEST_F(VsockHostile, PacketsOfNoConnection) {
  for (Operation op : {kOpData, kOpResponse, kOpShutdown, kOpCreditUpdate, kOpCreditRequest}) {
    guest_.Send(VsockGuest::Make(op, 1, 2));
    Packet reply = guest_.Receive();
    EXPECT_EQ(reply.header.op, kOpReset) << op;
    EXPECT_EQ(reply.header.src_port, 2u);
  }
  guest_.Send(VsockGuest::Make(kOpReset, 1, 2));
  EXPECT_FALSE(guest_.HasPacket());
}

TEST_F(VsockHostile, ASecondRequest) {
  guest_.Send(Make(kOpRequest));
  ExpectReset();
}

TEST_F(VsockHostile, AnAnswerThatNobodyAskedFor) {
  guest_.Send(Make(kOpResponse));
  ExpectReset();
}

TEST_F(VsockHostile, DataBeforeTheAnswer) {
  UniqueFd client = guest_.Connect(guest_.path());
  guest_.Write(client, "CONNECT 9\n");
  Packet request = guest_.Receive();
  ASSERT_EQ(request.header.op, kOpRequest);
  guest_.Send(VsockGuest::Make(kOpCreditUpdate, 9, request.header.src_port));
  EXPECT_EQ(guest_.Receive().header.op, kOpReset);
  EXPECT_TRUE(guest_.Ended(client));
}

TEST_F(VsockHostile, MoreThanItsCredit) {
  Header header = Make(kOpData);
  header.len = 60000;
  // The host reads nothing: its socket takes some, the device the credit and no byte more.
  uint32_t sent = 0, forwarded = 0;
  bool reset = false;
  while (sent < 10u << 20 && !reset) {
    guest_.Send(header, std::string(header.len, 'a'));
    sent += header.len;
    guest_.driver().Pump();
    while (auto packet = guest_.TryReceive()) {
      reset = packet->header.op == kOpReset;
      forwarded = packet->header.fwd_cnt;
    }
  }
  EXPECT_TRUE(reset);
  EXPECT_GT(sent - forwarded, Vsock::kLargeBuffer);
  EXPECT_LE(sent - forwarded, Vsock::kLargeBuffer + header.len);
}

TEST_F(VsockHostile, AcknowledgingWhatWasNeverSent) {
  guest_.Write(server_, "abc");
  EXPECT_EQ(guest_.ReceiveData(3), "abc");
  Header header = Make(kOpCreditUpdate);
  header.fwd_cnt = 4;
  guest_.Send(header);
  ExpectReset();
}

// An acknowledgement that is older than the last is a driver's right; it gives no credit.
TEST_F(VsockHostile, AcknowledgementsThatGoBackwards) {
  guest_.Write(server_, std::string(100000, 'a'));
  EXPECT_EQ(guest_.ReceiveData(65536).size(), 65536u);
  EXPECT_EQ(guest_.Receive().header.op, kOpCreditRequest);
  Header header = Make(kOpCreditUpdate);
  header.fwd_cnt = 1000;
  guest_.Send(header);
  EXPECT_EQ(guest_.ReceiveData(1000).size(), 1000u);
  EXPECT_EQ(guest_.Receive().header.op, kOpCreditRequest);
  header.fwd_cnt = 500;
  guest_.Send(header);
  EXPECT_FALSE(guest_.HasPacket());
  header.fwd_cnt = 66536;
  guest_.Send(header);
  EXPECT_EQ(guest_.ReceiveData(33464).size(), 33464u);
}

TEST_F(VsockHostile, ABufferThatShrinksToNothing) {
  guest_.Write(server_, std::string(1000, 'a'));
  EXPECT_EQ(guest_.ReceiveData(1000).size(), 1000u);
  Header header = Make(kOpCreditUpdate);
  header.buf_alloc = 0;
  guest_.Send(header);
  guest_.driver().Pump();
  guest_.Write(server_, "more");
  EXPECT_EQ(guest_.Receive().header.op, kOpCreditRequest);
  EXPECT_FALSE(guest_.HasPacket());
  header.buf_alloc = 1002;
  guest_.Send(header);
  EXPECT_EQ(guest_.ReceiveData(2), "mo");
  EXPECT_EQ(guest_.Receive().header.op, kOpCreditRequest);
  header.buf_alloc = 0xffffffff;
  guest_.Send(header);
  EXPECT_EQ(guest_.ReceiveData(2), "re");
}

// A host that is gone while the guest has no credit for what it left must not keep the loop busy.
TEST_F(VsockHostile, AnEndBehindACreditThatNeverComes) {
  Header header = Make(kOpCreditUpdate);
  header.buf_alloc = 0;
  guest_.Send(header);
  guest_.driver().Pump();
  guest_.Write(server_, "unread");
  server_.Reset();
  EXPECT_EQ(guest_.Receive().header.op, kOpShutdown);
  EXPECT_EQ(guest_.Receive().header.op, kOpCreditRequest);
  int turns = 0;
  guest_.driver().PumpUntil([&] { return ++turns > 20; }, 50);
  EXPECT_LE(turns, 20) << "the event loop spins";
  header.buf_alloc = 100;
  guest_.Send(header);
  EXPECT_EQ(guest_.ReceiveData(6), "unread");
  Packet end = guest_.Receive();
  EXPECT_EQ(end.header.op, kOpShutdown);
  EXPECT_EQ(end.header.flags, kShutdownBoth);
}

TEST_F(VsockHostile, FlagsOfAShutdownThatDoNotExist) {
  Header header = Make(kOpShutdown);
  header.flags = 0xfffffffc;
  guest_.Send(header);
  EXPECT_FALSE(guest_.HasPacket());
  EXPECT_EQ(guest_.Metric("connections"), 2u);
  header.flags = 0xffffffff;
  guest_.Send(header);
  ExpectReset();
}

// What the guest is owed is bounded: its packets wait in its own queue, and none is lost.
TEST(VsockFloods, PacketsToNobodyWithoutReceiveBuffers) {
  VsockGuest guest(60'000'000'000, 0);
  guest.set_refill(false);
  constexpr uint32_t kPackets = 2000;
  uint32_t sent = 0, answered = 0;
  auto send_some = [&] {
    for (int i = 0; i < 64 && sent < kPackets && guest.CanSend(); ++i, ++sent) {
      guest.Send(VsockGuest::Make(kOpData, sent, 2), {}, false);
    }
    guest.driver().Kick(kTxQueue);
    for (int i = 0; i < 4; ++i) guest.driver().Pump();
  };
  for (int i = 0; i < 30; ++i) send_some();
  // The bound, and a queue full of others.
  EXPECT_EQ(guest.Metric("packets_from_guest"), Vsock::kMaxResets);
  EXPECT_LT(sent, kPackets);
  while (answered < kPackets) {
    guest.AddReceiveBuffers(16, 64);
    Packet reply = guest.Receive();
    ASSERT_EQ(reply.header.op, kOpReset) << answered << " of " << sent;
    do {
      EXPECT_EQ(reply.header.dst_port, answered);
      ++answered;
      auto next = guest.TryReceive();
      if (!next) break;
      reply = *next;
    } while (true);
    send_some();
  }
  EXPECT_FALSE(guest.HasPacket());
}

TEST(VsockFloods, RequestsAndResetsByTheThousand) {
  VsockGuest guest;
  UniqueFd listener = guest.Listen(10, 8);
  for (uint32_t i = 0; i < 3000; ++i) {
    guest.Send(VsockGuest::Make(kOpRequest, i, 10));
    ASSERT_EQ(guest.Receive().header.op, kOpResponse);
    UniqueFd server(accept(listener.get(), nullptr, nullptr));
    guest.Send(VsockGuest::Make(kOpReset, i, 10));
    EXPECT_TRUE(guest.Ended(server));
  }
  EXPECT_EQ(guest.Metric("connections"), 0u);
}

// Clients that come and go while the driver takes no packet: nothing is kept for them.
TEST(VsockFloods, ClientsThatLeaveAtOnce) {
  VsockGuest guest(60'000'000'000, 0);
  for (int i = 0; i < 2000; ++i) {
    UniqueFd client = guest.Connect(guest.path());
    guest.Write(client, "CONNECT 5\n");
    guest.driver().Pump();
    client.Reset();
    guest.driver().Pump();
  }
  EXPECT_EQ(guest.Metric("connections"), 0u);
  guest.AddReceiveBuffers(4);
  EXPECT_FALSE(guest.HasPacket());
}

TEST(VsockBuffers, ReceiveBuffersTooSmallForAPacketAreAnError) {
  for (uint32_t size : {1u, 43u, 44u}) {
    VsockGuest guest(60'000'000'000, 0);
    guest.AddReceiveBuffers(4, size);
    guest.Send(VsockGuest::Make(kOpData, 1, 2));
    guest.driver().Pump();
    EXPECT_EQ(
        guest.driver().transport().failure(),
        "device: receive buffer of " + std::to_string(size) + " bytes, at least 45 are needed");
    EXPECT_NE(guest.driver().status() & virtio::kStatusNeedsReset, 0u);
    // And it works again once the driver has reset it.
    guest.Restart();
    guest.AddReceiveBuffers(4);
    guest.Send(VsockGuest::Make(kOpData, 1, 2));
    EXPECT_EQ(guest.Receive().header.op, kOpReset);
  }
}

TEST(VsockBuffers, HeadersAndPayloadInPieces) {
  VsockGuest guest(60'000'000'000, 0);
  auto& driver = guest.driver();
  std::vector<uint64_t> in;
  driver.AddRequest(kRxQueue, {}, {1, 43, 1, 99}, &in);
  Header header = VsockGuest::Make(kOpRequest, 1, 2);
  const auto* bytes = reinterpret_cast<const uint8_t*>(&header);
  driver.Add(kTxQueue, {{driver.Allocate({bytes, 10}), 10, false},
                        {driver.Allocate({bytes + 10, 34}), 34, false}});
  driver.Kick(kTxQueue);
  auto used = driver.WaitUsed(kRxQueue);
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, sizeof(Header));
  EXPECT_EQ(driver.Memory(in[0], 1)[0], kHostCid);
}

TEST(VsockBuffers, EventBuffersTooSmallAreAnError) {
  VsockGuest guest;
  UniqueFd listener = guest.Listen(10);
  UniqueFd server = guest.ConnectToHost(listener, 1, 10);
  guest.driver().AddRequest(kEventQueue, {}, {3}, nullptr);
  ASSERT_TRUE(guest.SaveAndRestore().ok());
  guest.driver().Pump();
  EXPECT_EQ(guest.driver().transport().failure(),
            "device: event buffer of 3 bytes, at least 4 are needed");
}

}  // namespace
}  // namespace cube::devices
