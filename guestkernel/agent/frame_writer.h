#ifndef CUBE_GUESTKERNEL_AGENT_FRAME_WRITER_H_
#define CUBE_GUESTKERNEL_AGENT_FRAME_WRITER_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/control_abi.h"
#include "base/ring.h"

namespace cube::agent {

// Sends frames over a control ring; what does not fit waits here.
class FrameWriter {
 public:
  explicit FrameWriter(RingProducer ring) : ring_(ring) {}

  // Queues a frame of a fixed part and text after it; Flush() sends it.
  template <typename Payload>
  void Queue(abi::FrameType type, const Payload& payload, std::string_view text = {}) {
    Queue(type, std::span(reinterpret_cast<const uint8_t*>(&payload), sizeof payload), text);
  }
  // Writes what fits. True if the ring has changed.
  bool Flush();

  bool empty() const { return pending_.empty(); }
  // True if Flush() would find both bytes and space for them.
  bool HasWork() { return !pending_.empty() && ring_.Free() > 0; }

 private:
  void Queue(abi::FrameType type, std::span<const uint8_t> payload, std::string_view text);

  RingProducer ring_;
  std::vector<uint8_t> pending_;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_FRAME_WRITER_H_
