#include "guestkernel/agent/output_pump.h"

#include <sys/uio.h>

#include <cerrno>

namespace cube::agent {

void OutputPump::End() {
  // Closing our end is what sends a SIGPIPE to a child whose reader has gone.
  pipe_.Reset();
  ring_.End();
  ended_ = true;
}

void OutputPump::Drain() {
  draining_ = true;
  pipe_ready_ = true;
  if (!pipe_.valid() && !ended_) End();
}

bool OutputPump::HasWork() {
  if (!pipe_.valid()) return false;
  if (ring_.ConsumerGone() || ring_.broken()) return true;
  return pipe_ready_ && ring_.Free() > 0;
}

bool OutputPump::Pump() {
  if (!pipe_.valid()) return false;
  bool tell_host = false;
  while (true) {
    uint32_t free = ring_.Free();
    if (ring_.ConsumerGone() || ring_.broken()) {
      End();
      return true;
    }
    if (!pipe_ready_) return tell_host;
    if (free == 0) {
      ring_.WaitForSpace();
      free = ring_.Free();
      if (free == 0) return tell_host;
    }
    auto areas = ring_.Space(free);
    iovec vector[2] = {{areas[0].data(), areas[0].size()}, {areas[1].data(), areas[1].size()}};
    ssize_t n = readv(pipe_.get(), vector, areas[1].empty() ? 1 : 2);
    if (n < 0 && errno == EINTR) continue;
    if (n > 0) {
      ring_.Publish(static_cast<uint32_t>(n));
      tell_host = true;
      // A pipe gives all it has if there is room: no second call to find it empty.
      if (static_cast<uint32_t>(n) == free) continue;
    }
    bool empty = n > 0 || (n < 0 && errno == EAGAIN);
    pipe_ready_ = false;
    if (empty && !draining_) return tell_host;
    End();
    return true;
  }
}

}  // namespace cube::agent
