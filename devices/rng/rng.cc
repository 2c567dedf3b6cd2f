#include "devices/rng/rng.h"

#include <sys/random.h>

#include <algorithm>
#include <cstring>

namespace cube::devices {

void Rng::ReadConfig(uint32_t, std::span<uint8_t> out) {
  std::fill(out.begin(), out.end(), uint8_t{0});  // 5.4.4: it has none
}

void Rng::ProcessQueue(uint32_t) {
  virtio::Virtqueue& queue = host().queue(0);
  uint32_t handled = 0;
  do {
    queue.DisableKicks();
    while (handled < kMaxBatch && queue.Pop(&chain_)) {
      ++handled;
      uint32_t written = 0;
      iovecs_.clear();
      chain_.WritableIovecs(0, kMaxRequest, &iovecs_);
      for (const iovec& buffer : iovecs_) {
        // Interrupted by a signal, or in pieces of 256 bytes at least: what there is will do.
        ssize_t got = getrandom(buffer.iov_base, buffer.iov_len, 0);
        if (got > 0) written += static_cast<uint32_t>(got);
        if (got != static_cast<ssize_t>(buffer.iov_len)) break;
      }
      bytes_ += written;
      queue.Push(&chain_, written);
    }
    queue.Notify();
  } while (queue.EnableKicks() && handled < kMaxBatch);
  if (queue.HasAvailable()) host().ProcessLater(0);
}

}  // namespace cube::devices
