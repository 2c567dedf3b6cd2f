// Both ends of a ring whose peer writes what it likes into the shared header.

#include "base/ring.h"

#include <fuzzer/FuzzedDataProvider.h>

#include <cstdlib>
#include <memory>
#include <vector>

namespace {

struct Mailbox {
  alignas(4096) uint8_t bytes[cube::abi::kMailboxSize] = {};
};

void Require(bool condition) {
  if (!condition) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cube;
  FuzzedDataProvider input(data, size);
  auto mailbox = std::make_unique<Mailbox>();
  auto id = static_cast<abi::RingId>(input.ConsumeIntegralInRange<uint32_t>(0, abi::kRingCount - 1));
  uint32_t index = static_cast<uint32_t>(id);
  abi::RingHeader& header = reinterpret_cast<abi::MailboxHeader*>(mailbox->bytes)->rings[index];
  const uint32_t capacity = abi::kRingPlaces[index].capacity;
  if (input.ConsumeBool()) {
    // Left behind by a peer that was there before.
    header.produced.store(input.ConsumeIntegral<uint32_t>());
    header.consumed.store(input.ConsumeIntegral<uint32_t>());
  }
  auto producer = OpenRing<RingProducer>(mailbox->bytes, id);
  auto consumer = OpenRing<RingConsumer>(mailbox->bytes, id);
  bool honest = header.produced.load() == header.consumed.load();
  std::vector<uint8_t> sent, received;
  while (input.remaining_bytes() > 0) {
    switch (input.ConsumeIntegralInRange<int>(0, 5)) {
      case 0: {
        std::vector<uint8_t> bytes(input.ConsumeIntegralInRange<size_t>(0, 2 * size_t{capacity}),
                                   input.ConsumeIntegral<uint8_t>());
        uint32_t written = producer.Write(bytes);
        Require(written <= capacity && written <= bytes.size());
        Require(!producer.broken() || written == 0);
        sent.insert(sent.end(), bytes.begin(), bytes.begin() + written);
        break;
      }
      case 1: {
        std::vector<uint8_t> bytes(input.ConsumeIntegralInRange<size_t>(0, 2 * size_t{capacity}));
        bool wake = false;
        uint32_t read = consumer.Read(bytes, &wake);
        Require(read <= capacity && read <= bytes.size());
        Require(!consumer.broken() || read == 0);
        received.insert(received.end(), bytes.begin(), bytes.begin() + read);
        break;
      }
      case 2:
        honest = false;
        header.produced.store(input.ConsumeIntegral<uint32_t>());
        break;
      case 3:
        honest = false;
        header.consumed.store(input.ConsumeIntegral<uint32_t>());
        break;
      case 4:
        Require(producer.Free() <= capacity);
        producer.WaitForSpace();
        break;
      default:
        Require(consumer.Available() <= capacity);
        (void)consumer.AtEnd();
        break;
    }
  }
  if (honest) {
    Require(!producer.broken() && !consumer.broken());
    Require(received.size() <= sent.size());
    Require(std::equal(received.begin(), received.end(), sent.begin()));
  }
  return 0;
}
