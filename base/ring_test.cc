#include "base/ring.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

namespace cube {
namespace {

struct Mailbox {
  alignas(4096) uint8_t bytes[abi::kMailboxSize] = {};
  abi::RingHeader& header(abi::RingId id) {
    return reinterpret_cast<abi::MailboxHeader*>(bytes)->rings[static_cast<uint32_t>(id)];
  }
};

TEST(ControlAbi, RingsLieInTheMailboxAndDoNotOverlap) {
  uint32_t end = sizeof(abi::MailboxHeader);
  for (const abi::RingPlace& place : abi::kRingPlaces) {
    EXPECT_GE(place.offset, end);
    EXPECT_EQ(place.capacity & (place.capacity - 1), 0u);
    end = place.offset + place.capacity;
  }
  EXPECT_LE(end, abi::kMailboxSize);
}

TEST(Ring, CarriesAStreamAcrossManyWraps) {
  auto mailbox = std::make_unique<Mailbox>();
  auto producer = OpenRing<RingProducer>(mailbox->bytes, abi::RingId::kStdout);
  auto consumer = OpenRing<RingConsumer>(mailbox->bytes, abi::RingId::kStdout);
  std::vector<uint8_t> sent(300000);
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<uint8_t>(i * 31 + i / 251);
  std::thread reader([&] {
    std::vector<uint8_t> got;
    uint8_t buffer[777];
    while (!consumer.AtEnd()) {
      bool wake = false;
      uint32_t n = consumer.Read(buffer, &wake);
      got.insert(got.end(), buffer, buffer + n);
    }
    EXPECT_EQ(got, sent);
  });
  size_t done = 0;
  while (done < sent.size()) {
    done += producer.Write(std::span<const uint8_t>(sent).subspan(done, std::min<size_t>(1001, sent.size() - done)));
  }
  producer.End();
  reader.join();
}

TEST(Ring, FullRingTakesNothingAndTheWaitingProducerIsToldOfSpace) {
  auto mailbox = std::make_unique<Mailbox>();
  auto producer = OpenRing<RingProducer>(mailbox->bytes, abi::RingId::kStderr);
  auto consumer = OpenRing<RingConsumer>(mailbox->bytes, abi::RingId::kStderr);
  std::vector<uint8_t> block(producer.Free(), 7);
  EXPECT_EQ(producer.Write(block), block.size());
  EXPECT_EQ(producer.Write(block), 0u);
  producer.WaitForSpace();
  uint8_t byte;
  bool wake = false;
  EXPECT_EQ(consumer.Read(std::span(&byte, 1), &wake), 1u);
  EXPECT_TRUE(wake);
  EXPECT_EQ(consumer.Read(std::span(&byte, 1), &wake), 1u);
  EXPECT_FALSE(wake);
  EXPECT_EQ(producer.Free(), 2u);
}

TEST(Ring, AnIndexThatMakesNoSenseBreaksTheRingForGood) {
  auto mailbox = std::make_unique<Mailbox>();
  auto consumer = OpenRing<RingConsumer>(mailbox->bytes, abi::RingId::kFromGuest);
  auto& header = mailbox->header(abi::RingId::kFromGuest);
  header.produced = 0x1001;
  EXPECT_EQ(consumer.Available(), 0u);
  EXPECT_TRUE(consumer.broken());
  header.produced = 10;
  EXPECT_EQ(consumer.Available(), 0u);

  auto producer = OpenRing<RingProducer>(mailbox->bytes, abi::RingId::kStdin);
  mailbox->header(abi::RingId::kStdin).consumed = 5;
  EXPECT_EQ(producer.Free(), 0u);
  EXPECT_TRUE(producer.broken());
}

}  // namespace
}  // namespace cube
