// The host's bytes in the control ring: frames, and start requests in them.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

#include "guestkernel/agent/frame_reader.h"
#include "guestkernel/agent/start_request.h"

namespace {

struct Memory {
  alignas(4096) uint8_t bytes[cube::abi::kMailboxSize] = {};
};

void Require(bool condition) {
  if (!condition) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cube;
  (void)agent::StartRequest::Parse(std::span(data, size));

  // The first byte says in pieces of what size the rest arrives.
  if (size == 0) return 0;
  auto memory = std::make_unique<Memory>();
  auto host = OpenRing<RingProducer>(memory->bytes, abi::RingId::kToGuest);
  agent::FrameReader reader(OpenRing<RingConsumer>(memory->bytes, abi::RingId::kToGuest));
  std::span<const uint8_t> rest(data + 1, size - 1);
  size_t piece = size_t{data[0]} * 8 + 1;
  while (!rest.empty()) {
    rest = rest.subspan(host.Write(rest.first(std::min(piece, rest.size()))));
    while (true) {
      Result<std::optional<agent::Frame>> frame = reader.Next();
      if (!frame.ok()) return 0;
      if (!frame->has_value()) break;
      Require((*frame)->payload.size() <= size);
      Result<agent::StartRequest> request = agent::StartRequest::Parse((*frame)->payload);
      if (request.ok()) Require(!request->arguments.empty() && !request->arguments[0].empty());
    }
    Require(!reader.HasWork());
  }
  return 0;
}
