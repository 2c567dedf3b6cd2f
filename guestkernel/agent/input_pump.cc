#include "guestkernel/agent/input_pump.h"

#include <sys/uio.h>

#include <cerrno>

namespace cube::agent {

void InputPump::Close() {
  pipe_.Reset();
  ring_.Leave();
}

bool InputPump::HasWork() {
  return pipe_.valid() && !pipe_full_ &&
         (ring_.Available() > 0 || ring_.AtEnd() || ring_.broken());
}

bool InputPump::Pump() {
  bool tell_host = false;
  while (pipe_.valid() && !pipe_full_) {
    uint32_t size = ring_.Available();
    if (ring_.broken()) {
      Close();
      return true;
    }
    if (size == 0) {
      if (ring_.AtEnd()) pipe_.Reset();
      break;
    }
    auto areas = ring_.Bytes(size);
    iovec vector[2] = {{areas[0].data(), areas[0].size()}, {areas[1].data(), areas[1].size()}};
    ssize_t n = writev(pipe_.get(), vector, areas[1].empty() ? 1 : 2);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      pipe_full_ = true;
      break;
    }
    if (n < 0) {  // EPIPE: nobody reads it any more
      Close();
      return true;
    }
    tell_host |= ring_.Release(static_cast<uint32_t>(n));
    // A pipe takes less than it is given only when it is full: no second call to find that out.
    if (static_cast<uint32_t>(n) < size) pipe_full_ = true;
  }
  return tell_host;
}

}  // namespace cube::agent
