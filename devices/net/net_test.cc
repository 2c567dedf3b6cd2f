#include "devices/net/net.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>

#include "devices/net/testing/socket_backend.h"
#include "devices/net/unplugged.h"
#include "devices/virtio/testing/fake_driver.h"

namespace cube::devices {
namespace {

using net::Header;
using net::kReceiveQueue;
using net::kTransmitQueue;
using net::testing::SocketBackend;
using virtio::fake::FakeDriver;
using Bytes = std::vector<uint8_t>;

constexpr MacAddress kMac = {2, 1, 2, 3, 4, 5};
constexpr uint64_t kOffloads =
    net::kFeatureCsum | net::kFeatureGuestCsum | net::kFeatureGuestTso4 | net::kFeatureHostTso4;

// A frame of `size` bytes, each frame another.
Bytes Frame(size_t size, uint8_t seed) {
  Bytes frame(size);
  std::iota(frame.begin(), frame.end(), seed);
  return frame;
}

Bytes Framed(const Header& header, const Bytes& frame) {
  Bytes all(sizeof header + frame.size());
  memcpy(all.data(), &header, sizeof header);
  std::ranges::copy(frame, all.begin() + sizeof header);
  return all;
}

class NetTest : public ::testing::Test {
 protected:
  std::unique_ptr<virtio::Device> Make(vmm::EventLoop* loop) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) abort();
    peer_ = UniqueFd(pair[1]);
    auto backend = std::make_unique<SocketBackend>(UniqueFd(pair[0]), offloads_);
    backend_ = backend.get();
    backend->refuse = refuse_;
    auto made = Net::Create(std::move(backend), options_, loop);
    if (!made.ok()) abort();
    return std::move(made).value();
  }
  // Makes the device, and starts its driver with `features`.
  FakeDriver& Start(uint64_t features = ~0ull) {
    driver_ = std::make_unique<FakeDriver>([this](vmm::EventLoop* loop) { return Make(loop); });
    driver_->Start(features);
    return *driver_;
  }
  Status Restore() {
    return driver_->SaveAndRestore([this](vmm::EventLoop* loop) { return Make(loop); });
  }

  void FromPeer(const Bytes& frame, const Header& header = {}) {
    Bytes all = Framed(header, frame);
    ASSERT_EQ(write(peer_.get(), all.data(), all.size()), static_cast<ssize_t>(all.size()));
  }
  // What the device has sent, without its header; empty if nothing.
  Bytes AtPeer(Header* header = nullptr) {
    Bytes all(1 << 17);
    ssize_t n = read(peer_.get(), all.data(), all.size());
    if (n < static_cast<ssize_t>(sizeof(Header))) return {};
    all.resize(static_cast<size_t>(n));
    if (header != nullptr) memcpy(header, all.data(), sizeof *header);
    return {all.begin() + sizeof(Header), all.end()};
  }
  // Buffers for the device, each a chain of its own; their addresses by head.
  void AddBuffers(int count, uint32_t size) {
    for (int i = 0; i < count; ++i) {
      std::vector<uint64_t> in;
      uint16_t head = driver_->AddRequest(kReceiveQueue, {}, {size}, &in);
      buffers_[head] = in[0];
    }
    driver_->Kick(kReceiveQueue);
    driver_->Pump();
  }
  // The next frame the driver gets, put together of its buffers.
  Bytes Receive(Header* header_out = nullptr) {
    auto used = driver_->WaitUsed(kReceiveQueue);
    if (!used) return {};
    Bytes all;
    auto append = [&] {
      auto part = driver_->Memory(buffers_[used->head], used->written);
      all.insert(all.end(), part.begin(), part.end());
    };
    append();
    Header header;
    memcpy(&header, all.data(), sizeof header);
    for (int i = 1; i < header.num_buffers; ++i) {
      used = driver_->TakeUsed(kReceiveQueue);  // they come together
      if (!used) return {};
      append();
    }
    if (header_out != nullptr) *header_out = header;
    return {all.begin() + sizeof header, all.end()};
  }
  void Send(const Bytes& frame, const Header& header = {}) {
    driver_->AddRequest(kTransmitQueue, Framed(header, frame), {}, nullptr);
    driver_->Kick(kTransmitQueue);
  }
  net::Config Configuration() {
    net::Config config;
    Bytes bytes = driver_->ReadConfig(0, sizeof config);
    memcpy(&config, bytes.data(), sizeof config);
    return config;
  }
  uint64_t Counter(const std::string& name) {
    uint64_t found = ~uint64_t{0};
    driver_->transport().Metrics([&](const char* counter, uint64_t value) {
      if (name == counter) found = value;
    });
    return found;
  }

  uint64_t offloads_ = kOffloads;
  bool refuse_ = false;
  NetOptions options_ = {.mac = kMac};
  UniqueFd peer_;
  SocketBackend* backend_ = nullptr;
  std::unique_ptr<FakeDriver> driver_;
  std::map<uint16_t, uint64_t> buffers_;
};

TEST_F(NetTest, ConfigurationSpace) {
  options_.mtu = 1400;
  FakeDriver& driver = Start();
  EXPECT_EQ(driver.ReadConfig(0, 12), (Bytes{2, 1, 2, 3, 4, 5, 1, 0, 0, 0, 0x78, 5}));
  EXPECT_NE(driver.OfferedFeatures() & net::kFeatureMtu, 0u);
  driver.Write(virtio::kMmioConfig, 0);
  EXPECT_EQ(driver.ReadConfig(0, 6), Bytes(kMac.begin(), kMac.end()));
  EXPECT_EQ(Counter("driver_errors"), 1u);
  options_.mtu = 0;
  EXPECT_EQ(Start().OfferedFeatures() & net::kFeatureMtu, 0u);
}

TEST_F(NetTest, ImpossibleOptionsAreErrors) {
  auto loop = vmm::EventLoop::Create();
  for (uint32_t mtu : {1u, 67u, 65536u}) {
    auto made = Net::Create(std::make_unique<SocketBackend>(UniqueFd(), 0),
                            {.mac = kMac, .mtu = mtu}, &*loop);
    ASSERT_FALSE(made.ok());
    EXPECT_NE(made.error().message().find(std::to_string(mtu)), std::string::npos);
  }
  EXPECT_FALSE(
      Net::Create(std::make_unique<SocketBackend>(UniqueFd(), 0), {.mac = {1}}, &*loop).ok());
  auto one = RandomMacAddress(), other = RandomMacAddress();
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_NE(*one, *other);
  EXPECT_EQ((*one)[0] & 3, 2);
}

TEST_F(NetTest, FramesGoBothWays) {
  Start();
  AddBuffers(64, 2048);
  for (uint8_t i = 0; i < 40; ++i) {
    FromPeer(Frame(60 + i, i));
    Header header;
    EXPECT_EQ(Receive(&header), Frame(60 + i, i));
    EXPECT_EQ(header.num_buffers, 1);
    AddBuffers(1, 2048);
    Send(Frame(1000 + i, i));
    ASSERT_TRUE(driver_->WaitUsed(kTransmitQueue));
    EXPECT_EQ(AtPeer(), Frame(1000 + i, i));
  }
  EXPECT_EQ(Counter("rx_frames"), 40u);
  EXPECT_EQ(Counter("tx_frames"), 40u);
}

TEST_F(NetTest, ALongFrameTakesAsManyBuffersAsItNeeds) {
  Start();
  AddBuffers(100, 1536);
  FromPeer(Frame(60000, 1), {1, net::kGsoTcp4, 54, 1448, 34, 16, 0});
  Header header;
  EXPECT_EQ(Receive(&header), Frame(60000, 1));
  EXPECT_EQ(header.num_buffers, (60000 + 12 + 1535) / 1536);
  EXPECT_EQ(header.gso_size, 1448);
  // Exactly one buffer, and one byte more.
  AddBuffers(60, 1536);
  FromPeer(Frame(1524, 2));
  EXPECT_EQ(Receive(&header), Frame(1524, 2));
  EXPECT_EQ(header.num_buffers, 1);
  FromPeer(Frame(1525, 3));
  EXPECT_EQ(Receive(&header), Frame(1525, 3));
  EXPECT_EQ(header.num_buffers, 2);
}

TEST_F(NetTest, WithoutMergeableBuffersOneChainHoldsAFrame) {
  Start(~net::kFeatureMergeableBuffers);
  AddBuffers(2, 1600);
  FromPeer(Frame(1601, 1));  // does not fit, is dropped
  FromPeer(Frame(1588, 2));
  Header header;
  EXPECT_EQ(Receive(&header), Frame(1588, 2));
  EXPECT_EQ(header.num_buffers, 1);
  EXPECT_EQ(Counter("rx_too_long"), 1u);
}

// A header in pieces, a chain of many buffers.
TEST_F(NetTest, BuffersMayBeOfAnyShape) {
  Start(~net::kFeatureMergeableBuffers);
  std::vector<uint64_t> in;
  driver_->AddRequest(kReceiveQueue, {}, {1, 4, 6, 3, 1000, 1000}, &in);
  driver_->Kick(kReceiveQueue);
  FromPeer(Frame(1500, 9));
  EXPECT_EQ(driver_->WaitUsed(kReceiveQueue)->written, 1512u);
  EXPECT_EQ(driver_->Memory(in[2] + 5, 1)[0], 1) << "num_buffers";
  EXPECT_EQ(driver_->Memory(in[3] + 1, 1)[0], 9) << "the frame's first byte";
  Bytes all = Framed({}, Frame(100, 7));
  uint64_t out = driver_->Allocate(all);
  driver_->Add(kTransmitQueue,
               {{out, 5, false}, {out + 5, 7, false}, {out + 12, 1, false}, {out + 13, 99, false}},
               true);
  driver_->Kick(kTransmitQueue);
  ASSERT_TRUE(driver_->WaitUsed(kTransmitQueue));
  EXPECT_EQ(AtPeer(), Frame(100, 7));
}

TEST_F(NetTest, ABatchIsOneInterrupt) {
  Start(~virtio::kFeatureEventIdx);
  AddBuffers(60, 2048);
  driver_->TakeInterrupts();
  for (uint8_t i = 0; i < 8; ++i) FromPeer(Frame(100, i));
  driver_->Pump();
  EXPECT_EQ(driver_->TakeInterrupts(), 1u);
  for (uint8_t i = 0; i < 8; ++i) EXPECT_EQ(Receive(), Frame(100, i));
  for (int i = 0; i < 8; ++i) {
    driver_->AddRequest(kTransmitQueue, Framed({}, Frame(100, 1)), {}, nullptr);
  }
  driver_->Kick(kTransmitQueue);
  driver_->Pump();
  EXPECT_EQ(driver_->TakeInterrupts(), 1u);
}

TEST_F(NetTest, NoBuffersNoWork) {
  Start();
  FromPeer(Frame(100, 1));
  // Nothing is waited for while there is nowhere to put it: no round of the loop finds work.
  for (int i = 0; i < 100; ++i) driver_->Pump();
  EXPECT_EQ(Counter("rx_no_buffers"), 0u);
  AddBuffers(1, 2048);
  EXPECT_EQ(Receive(), Frame(100, 1)) << "a queue of few buffers is used as it is";
  FromPeer(Frame(100, 2));
  for (int i = 0; i < 100; ++i) driver_->Pump();
  EXPECT_LE(Counter("rx_no_buffers"), 2u);
  AddBuffers(1, 2048);
  EXPECT_EQ(Receive(), Frame(100, 2));
}

// The longest frame may not fit into what is left, so it waits for the driver rather than being
// cut.
TEST_F(NetTest, AFrameWaitsForBuffersOnce) {
  Start();
  AddBuffers(50, 1536);
  FromPeer(Frame(40000, 1));
  EXPECT_EQ(Receive(), Frame(40000, 1));
  FromPeer(Frame(60000, 2));
  driver_->Pump();
  EXPECT_FALSE(driver_->TakeUsed(kReceiveQueue));
  AddBuffers(40, 1536);
  EXPECT_EQ(Receive(), Frame(60000, 2));
  EXPECT_EQ(Counter("rx_too_long"), 0u);
  // And once the driver has added what it has, a frame beyond that is dropped: others wait behind.
  FromPeer(Frame(60000, 3));
  FromPeer(Frame(60, 4));
  driver_->Pump();
  AddBuffers(1, 1536);
  EXPECT_EQ(Receive(), Frame(60, 4));
  EXPECT_EQ(Counter("rx_too_long"), 1u);
}

TEST_F(NetTest, AFullBackendHoldsFramesBack) {
  Start();
  int sent = 0;
  // Until the peer's socket is full and one frame waits.
  while (Counter("tx_full") == 0) {
    Send(Frame(1000, static_cast<uint8_t>(sent++)));
    driver_->Pump();
    while (driver_->TakeUsed(kTransmitQueue)) {
    }
    ASSERT_LT(sent, 5000);
  }
  Send(Frame(1000, static_cast<uint8_t>(sent++)));
  for (int i = 0; i < 100; ++i) driver_->Pump();
  EXPECT_EQ(Counter("tx_full"), 1u) << "no attempt before there is room";
  for (int i = 0; i < sent; ++i) {
    Bytes frame;
    ASSERT_TRUE(driver_->PumpUntil([&] { return !(frame = AtPeer()).empty(); }));
    EXPECT_EQ(frame, Frame(1000, static_cast<uint8_t>(i)));
  }
  EXPECT_EQ(Counter("tx_frames"), static_cast<uint64_t>(sent));
}

TEST_F(NetTest, HostileFramesAreDroppedAndCounted) {
  Start();
  const Header segment = {1, net::kGsoTcp4, 54, 1448, 34, 16, 0};
  std::vector<std::pair<Bytes, Header>> bad = {
      {Frame(1000, 0), {1, 0, 0, 0, 990, 9, 0}},  // checksum outside
      {Frame(1000, 0), {1, 0, 0, 0, 0xffff, 0xffff, 0}},
      {Frame(1000, 0), {0, net::kGsoTcp4, 54, 1448, 34, 16, 0}},
      {Frame(1000, 0), {1, net::kGsoTcp4, 54, 0, 34, 16, 0}},
      {Frame(1000, 0), {1, net::kGsoTcp4, 1001, 1448, 34, 16, 0}},
      {Frame(1000, 0), {1, net::kGsoTcp6, 54, 1448, 34, 16, 0}},  // not negotiated
      {Frame(1000, 0), {1, 0x7f, 54, 1448, 34, 16, 0}},
      {Frame(13, 0), {}},
      {Frame(net::kMaxFrame + 1, 0), segment},
  };
  for (const auto& [frame, header] : bad) {
    Send(frame, header);
    ASSERT_TRUE(driver_->WaitUsed(kTransmitQueue));
  }
  EXPECT_EQ(Counter("tx_invalid"), bad.size());
  // Less than a header, and buffers to write to.
  const uint8_t few[5] = {};
  driver_->AddRequest(kTransmitQueue, few, {}, nullptr);
  driver_->AddRequest(kTransmitQueue, {}, {100}, nullptr);
  driver_->Kick(kTransmitQueue);
  ASSERT_TRUE(driver_->WaitUsed(kTransmitQueue));
  ASSERT_TRUE(driver_->WaitUsed(kTransmitQueue));
  EXPECT_EQ(Counter("tx_invalid"), bad.size() + 2);
  EXPECT_EQ(AtPeer(), Bytes());
  // Buffers to read from, and too small ones, are of no use for receiving.
  AddBuffers(1, 11);
  driver_->AddRequest(kReceiveQueue, few, {}, nullptr);
  driver_->Kick(kReceiveQueue);
  EXPECT_EQ(driver_->WaitUsed(kReceiveQueue)->written, 0u);
  EXPECT_EQ(driver_->WaitUsed(kReceiveQueue)->written, 0u);
  EXPECT_EQ(Counter("rx_bad_buffers"), 2u);
  AddBuffers(1, 2000);
  FromPeer(Frame(100, 1));
  EXPECT_EQ(Receive(), Frame(100, 1));
  Send(Frame(100, 5), segment);
  ASSERT_TRUE(driver_->WaitUsed(kTransmitQueue));
  EXPECT_EQ(AtPeer(), Frame(100, 5));
}

// 4 GiB of buffers in one chain: the same page again and again.
TEST_F(NetTest, AChainMayBeLargerThanAnyFrame) {
  Start();
  uint64_t page = driver_->Allocate(1 << 20);
  std::vector<FakeDriver::Buffer> buffers(100, {page, 1 << 20, true});
  driver_->Add(kReceiveQueue, buffers);
  driver_->Kick(kReceiveQueue);
  FromPeer(Frame(60000, 1));
  EXPECT_EQ(driver_->WaitUsed(kReceiveQueue)->written, 60012u);
  for (auto& buffer : buffers) buffer.writable = false;
  driver_->Add(kTransmitQueue, buffers);
  driver_->Kick(kTransmitQueue);
  ASSERT_TRUE(driver_->WaitUsed(kTransmitQueue));
  EXPECT_EQ(Counter("tx_invalid"), 1u);
}

TEST_F(NetTest, OffloadsFollowTheDriver) {
  Start();
  EXPECT_EQ(backend_->set & kOffloads, kOffloads);
  Start(net::kFeatureMac | virtio::kFeatureVersion1);
  EXPECT_EQ(backend_->set & kOffloads, 0u);
  AddBuffers(60, 2048);
  FromPeer(Frame(1000, 1), {1, net::kGsoTcp4, 54, 1448, 34, 16, 0});  // was on its way
  FromPeer(Frame(1000, 2), {1, 0, 0, 0, 34, 16, 0});
  FromPeer(Frame(1000, 3), {2, 0, 0, 0, 0, 0, 0});
  Header header;
  EXPECT_EQ(Receive(&header), Frame(1000, 3));
  EXPECT_EQ(header.flags, 0);
  EXPECT_EQ(Counter("rx_unexpected"), 2u);
  driver_->Write(virtio::kMmioStatus, 0);
  EXPECT_EQ(backend_->set, 0u);
}

TEST_F(NetTest, ABackendThatRefusesOffloadsFailsTheDevice) {
  refuse_ = true;
  Start();
  EXPECT_NE(driver_->status() & virtio::kStatusNeedsReset, 0u);
  EXPECT_EQ(driver_->transport().failure(), "device: the backend does not take the offloads");
}

TEST_F(NetTest, ABackendThatGoesIsALinkThatGoesDown) {
  Start();
  AddBuffers(60, 2048);
  FromPeer(Frame(100, 1));
  EXPECT_EQ(Receive(), Frame(100, 1));
  // A datagram socket has no end; a device learns of it by an empty read, as of a file's.
  ASSERT_EQ(write(peer_.get(), "", 0), 0);
  driver_->Pump();
  EXPECT_EQ(driver_->ReadConfig(6, 2), (Bytes{0, 0}));
  EXPECT_NE(driver_->Read(virtio::kMmioInterruptStatus) & virtio::kInterruptConfigChange, 0u);
  Send(Frame(100, 1));  // stays where it is, and harms nobody
  driver_->Pump();
  driver_->Write(virtio::kMmioStatus, 0);
}

TEST_F(NetTest, ResetsInTheMiddleOfTraffic) {
  for (int round = 0; round < 5; ++round) {
    if (round == 0) {
      Start();
    } else {
      driver_->Start();
    }
    AddBuffers(60, 2048);
    for (uint8_t i = 0; i < 5; ++i) FromPeer(Frame(100, i));
    EXPECT_EQ(Receive(), Frame(100, 0));
    for (uint8_t i = 1; i < 5; ++i) EXPECT_EQ(Receive(), Frame(100, i));
    driver_->Write(virtio::kMmioStatus, 0);
    driver_->Pump();
    FromPeer(Frame(50, 0));
    driver_->Pump();
    driver_->Start();
    AddBuffers(60, 2048);
    EXPECT_EQ(Receive(), Frame(50, 0)) << "what the backend has is not lost";
    driver_->Write(virtio::kMmioStatus, 0);
  }
}

TEST_F(NetTest, LimitsHoldBackEachDirection) {
  options_.receive = {.operations_per_second = 1, .operations_burst = 3};
  options_.transmit = {.bytes_per_second = 1, .bytes_burst = 2500};
  Start();
  AddBuffers(60, 2048);
  for (uint8_t i = 0; i < 5; ++i) FromPeer(Frame(100, i));
  for (uint8_t i = 0; i < 3; ++i) EXPECT_EQ(Receive(), Frame(100, i));
  for (uint8_t i = 0; i < 5; ++i) Send(Frame(1000, i));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(driver_->WaitUsed(kTransmitQueue));
  driver_->Pump();
  // 3,000 bytes is more than the burst: a frame that has begun to pass passes whole.
  EXPECT_EQ(Counter("tx_frames"), 3u);
  EXPECT_GE(Counter("tx_limited"), 1u);
  EXPECT_EQ(Counter("rx_limited"), 1u);
  EXPECT_FALSE(driver_->TakeUsed(kTransmitQueue));
  EXPECT_EQ(Receive(), Frame(100, 3)) << "after the second that the limit asks for";
}

TEST_F(NetTest, GoesOnAfterARestore) {
  Start();
  AddBuffers(50, 1536);
  FromPeer(Frame(100, 1));
  EXPECT_EQ(Receive(), Frame(100, 1));
  // Chains are held ahead, a frame waits to be sent, and one has not been taken from the backend.
  driver_->AddRequest(kTransmitQueue, Framed({}, Frame(200, 2)), {}, nullptr);
  options_.mac = {2, 9, 9, 9, 9, 9};
  ASSERT_TRUE(Restore().ok());
  EXPECT_EQ(backend_->set & kOffloads, kOffloads) << "set on the new backend";
  ASSERT_TRUE(driver_->WaitUsed(kTransmitQueue));
  EXPECT_EQ(AtPeer(), Frame(200, 2));
  EXPECT_EQ(driver_->ReadConfig(0, 6), Bytes(kMac.begin(), kMac.end())) << "the guest knows it";
  for (uint8_t i = 0; i < 40; ++i) {
    FromPeer(Frame(1000, i));
    ASSERT_EQ(Receive(), Frame(1000, i));
    AddBuffers(1, 1536);
  }
}

TEST_F(NetTest, ARestoreNeedsWhatTheDriverUses) {
  Start();
  uint64_t all = std::exchange(offloads_, net::kFeatureCsum);
  Status restored = Restore();
  ASSERT_FALSE(restored.ok());
  EXPECT_NE(restored.error().message().find("features"), std::string::npos);
  offloads_ = all;
  Start();
  options_.mtu = 1400;
  restored = Restore();
  ASSERT_FALSE(restored.ok());
  EXPECT_NE(restored.error().message().find("MTU of 0, not 1400"), std::string::npos)
      << restored.error().message();
}

// Goes on by itself after Quiesce() when the process is not left, and nothing is out meanwhile.
TEST_F(NetTest, QuietWhileItIsSaved) {
  Start();
  AddBuffers(50, 1536);
  FromPeer(Frame(100, 1));
  EXPECT_EQ(Receive(), Frame(100, 1));
  driver_->transport().Quiesce();
  FromPeer(Frame(100, 2));
  driver_->Pump();
  EXPECT_FALSE(driver_->TakeUsed(kReceiveQueue));
  StateWriter state;
  EXPECT_TRUE(driver_->transport().Save(&state).ok());
  driver_->transport().Resume();
  EXPECT_EQ(Receive(), Frame(100, 2));
}

TEST_F(NetTest, RestoredWithoutANetworkItsLinkIsDown) {
  Start();
  net::Config config = Configuration();
  EXPECT_EQ(config.status, net::kStatusLinkUp);
  const uint64_t generation = driver_->Read(virtio::kMmioConfigGeneration);
  AddBuffers(4, 2048);
  ASSERT_TRUE(driver_
                  ->SaveAndRestore([this](vmm::EventLoop* loop) -> std::unique_ptr<virtio::Device> {
                    return Net::Create(std::make_unique<net::Unplugged>(), options_, loop).value();
                  })
                  .ok());
  // The driver is told, and what it sends goes nowhere.
  config = Configuration();
  EXPECT_EQ(config.status, 0);
  EXPECT_TRUE(std::ranges::equal(config.mac, kMac));
  EXPECT_NE(driver_->Read(virtio::kMmioConfigGeneration), generation);
  Send(Frame(100, 1));
  driver_->Pump();
  // A network at the next place: the link is up, with all that was asked for before.
  ASSERT_TRUE(Restore().ok());
  EXPECT_EQ(Configuration().status, net::kStatusLinkUp);
  FromPeer(Frame(60, 3));
  driver_->Kick(kReceiveQueue);
  EXPECT_EQ(Receive(), Frame(60, 3));
  EXPECT_EQ(AtPeer(), Frame(100, 1));
}

// A NIC that waits for its network: the driver hears of nothing, and what it has sent is gone.
TEST_F(NetTest, PluggedInLater) {
  Start();
  const uint64_t generation = driver_->Read(virtio::kMmioConfigGeneration);
  AddBuffers(4, 2048);
  Net* device = nullptr;
  auto waiting = [&](vmm::EventLoop* loop) -> std::unique_ptr<virtio::Device> {
    auto made = Net::Create(std::make_unique<net::Unplugged>(true), options_, loop).value();
    device = made.get();
    return made;
  };
  ASSERT_TRUE(driver_->SaveAndRestore(waiting).ok());
  EXPECT_TRUE(device->awaits_network());
  EXPECT_EQ(Configuration().status, net::kStatusLinkUp);
  Send(Frame(100, 1));
  ASSERT_TRUE(driver_->WaitUsed(kTransmitQueue));
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
  peer_ = UniqueFd(pair[1]);
  auto poor = std::make_unique<SocketBackend>(UniqueFd(dup(pair[0])), net::kFeatureCsum);
  EXPECT_FALSE(device->Plug(std::move(poor)).ok()) << "the driver uses more";
  auto backend = std::make_unique<SocketBackend>(UniqueFd(pair[0]), kOffloads);
  backend_ = backend.get();
  ASSERT_TRUE(device->Plug(std::move(backend)).ok());
  EXPECT_FALSE(device->awaits_network());
  EXPECT_EQ(backend_->set & kOffloads, kOffloads);
  EXPECT_EQ(driver_->Read(virtio::kMmioConfigGeneration), generation);
  EXPECT_TRUE(AtPeer().empty());
  FromPeer(Frame(60, 3));
  EXPECT_EQ(Receive(), Frame(60, 3));
  Send(Frame(100, 2));
  ASSERT_TRUE(driver_->WaitUsed(kTransmitQueue));
  EXPECT_EQ(AtPeer(), Frame(100, 2));
  // Taken away again: the link is down.
  ASSERT_TRUE(device->Plug(std::make_unique<net::Unplugged>()).ok());
  EXPECT_EQ(Configuration().status, 0);
}

}  // namespace
}  // namespace cube::devices
