#ifndef CUBE_GUESTKERNEL_AGENT_FRAME_READER_H_
#define CUBE_GUESTKERNEL_AGENT_FRAME_READER_H_

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/control_abi.h"
#include "base/result.h"
#include "base/ring.h"

namespace cube::agent {

struct Frame {
  uint32_t type = 0;
  std::vector<uint8_t> payload;
};

// Puts the frames of a control ring together; a frame may arrive in pieces.
class FrameReader {
 public:
  explicit FrameReader(RingConsumer ring) : ring_(ring) {}

  // The next frame, or nothing if it has not all arrived. An error means that the stream has lost
  // its sense; nothing more is read from it.
  Result<std::optional<Frame>> Next();

  // True if Next() would find bytes.
  bool HasWork() { return !failed_ && ring_.Available() > 0; }
  // True once after the host has been waiting for the space that Next() made.
  bool TakeHostWaits() { return std::exchange(host_waits_, false); }

 private:
  // Moves bytes from the ring to `out`; returns how many.
  uint32_t Read(std::span<uint8_t> out);
  Error Fail(Error error);

  RingConsumer ring_;
  abi::FrameHeader header_ = {};
  uint32_t header_have_ = 0;
  std::vector<uint8_t> payload_;
  bool host_waits_ = false;
  bool failed_ = false;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_FRAME_READER_H_
