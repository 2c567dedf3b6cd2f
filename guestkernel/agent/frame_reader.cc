#include "guestkernel/agent/frame_reader.h"

#include <algorithm>

namespace cube::agent {

uint32_t FrameReader::Read(std::span<uint8_t> out) {
  bool wake = false;
  uint32_t size = ring_.Read(out, &wake);
  host_waits_ |= wake;
  return size;
}

Error FrameReader::Fail(Error error) {
  failed_ = true;
  return error;
}

Result<std::optional<Frame>> FrameReader::Next() {
  if (failed_) return std::optional<Frame>();
  if (header_have_ < sizeof header_) {
    auto bytes = std::span(reinterpret_cast<uint8_t*>(&header_), sizeof header_);
    header_have_ += Read(bytes.subspan(header_have_));
    if (ring_.broken()) return Fail(Error("the indices of the control ring make no sense"));
    if (header_have_ < sizeof header_) return std::optional<Frame>();
    if (header_.size > abi::kMaxFrameSize) {
      return Fail(Errorf("a frame of %u bytes; the limit is %u", header_.size, abi::kMaxFrameSize));
    }
  }
  // The buffer grows with what has arrived, not with what was announced.
  while (payload_.size() < header_.size) {
    size_t have = payload_.size();
    size_t more = std::min<size_t>(header_.size - have, ring_.Available());
    if (ring_.broken()) return Fail(Error("the indices of the control ring make no sense"));
    if (more == 0) return std::optional<Frame>();
    payload_.resize(have + more);
    uint32_t size = Read(std::span(payload_).subspan(have));
    payload_.resize(have + size);
  }
  Frame frame{header_.type, std::move(payload_)};
  payload_.clear();
  header_have_ = 0;
  return std::optional<Frame>(std::move(frame));
}

}  // namespace cube::agent
