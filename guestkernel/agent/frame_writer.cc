#include "guestkernel/agent/frame_writer.h"

namespace cube::agent {

void FrameWriter::Queue(abi::FrameType type, std::span<const uint8_t> payload,
                        std::string_view text) {
  abi::FrameHeader header = {static_cast<uint32_t>(type),
                             static_cast<uint32_t>(payload.size() + text.size())};
  const auto* bytes = reinterpret_cast<const uint8_t*>(&header);
  pending_.insert(pending_.end(), bytes, bytes + sizeof header);
  pending_.insert(pending_.end(), payload.begin(), payload.end());
  pending_.insert(pending_.end(), text.begin(), text.end());
}

bool FrameWriter::Flush() {
  uint32_t written = 0;
  while (!pending_.empty()) {
    uint32_t size = ring_.Write(pending_);
    if (size == 0) {
      ring_.WaitForSpace();
      if (ring_.Free() > 0) continue;
      break;
    }
    pending_.erase(pending_.begin(), pending_.begin() + size);
    written += size;
  }
  return written > 0;
}

}  // namespace cube::agent
