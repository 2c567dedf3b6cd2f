#ifndef CUBE_GUESTKERNEL_AGENT_CONNECT_ENVELOPE_H_
#define CUBE_GUESTKERNEL_AGENT_CONNECT_ENVELOPE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "guestkernel/agent/connect/rpc_error.h"

namespace cube::agent::connect {

// The largest message that is taken: it is kept in memory as a whole.
inline constexpr size_t kMaxMessage = 8 << 20;

// Messages of streams come in envelopes: a byte of flags, the size in four bytes, big-endian, the
// message.
inline constexpr size_t kEnvelopeHeader = 5;
inline constexpr uint8_t kEnvelopeCompressed = 0x01;
inline constexpr uint8_t kEnvelopeEnd = 0x02;

std::string MakeEnvelope(uint8_t flags, std::string_view message);

// Takes messages out of envelopes, in pieces as they arrive.
class EnvelopeReader {
 public:
  void Add(std::string_view bytes) { bytes_ += bytes; }

  // The next whole message, if it is there. After an error it is not to be called again.
  Outcome<std::optional<std::string>> Next();

  // What has been given and not been taken out yet.
  size_t size() const { return bytes_.size(); }
  // True if nothing is left over.
  bool empty() const { return used_ == bytes_.size(); }

 private:
  std::string bytes_;
  size_t used_ = 0;
};

}  // namespace cube::agent::connect

#endif  // CUBE_GUESTKERNEL_AGENT_CONNECT_ENVELOPE_H_
