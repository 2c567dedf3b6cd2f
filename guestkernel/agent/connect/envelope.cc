#include "guestkernel/agent/connect/envelope.h"

#include "base/result.h"

namespace cube::agent::connect {

std::string MakeEnvelope(uint8_t flags, std::string_view message) {
  const uint32_t size = static_cast<uint32_t>(message.size());
  std::string out;
  out.reserve(kEnvelopeHeader + message.size());
  out += static_cast<char>(flags);
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(size >> shift);
  out += message;
  return out;
}

Outcome<std::optional<std::string>> EnvelopeReader::Next() {
  const std::string_view rest = std::string_view(bytes_).substr(used_);
  if (rest.size() < kEnvelopeHeader) return std::optional<std::string>();
  const uint8_t flags = static_cast<uint8_t>(rest[0]);
  uint32_t size = 0;
  for (size_t i = 1; i < kEnvelopeHeader; ++i) size = size << 8 | static_cast<uint8_t>(rest[i]);
  if ((flags & kEnvelopeCompressed) != 0) {
    return RpcError{Code::kUnimplemented, "compressed message, but no compression was agreed on"};
  }
  if (flags != 0) {
    return RpcError{Code::kInvalidArgument, Format("message with flags 0x%02x", flags)};
  }
  if (size > kMaxMessage) {
    return RpcError{Code::kResourceExhausted,
                    Format("message of %u bytes, at most %zu are possible", size, kMaxMessage)};
  }
  if (rest.size() - kEnvelopeHeader < size) return std::optional<std::string>();
  std::string message(rest.substr(kEnvelopeHeader, size));
  used_ += kEnvelopeHeader + size;
  if (used_ == bytes_.size()) {
    bytes_.clear();
    used_ = 0;
  } else if (used_ > kMaxMessage) {
    bytes_.erase(0, used_);
    used_ = 0;
  }
  return std::optional<std::string>(std::move(message));
}

}  // namespace cube::agent::connect
