#include "devices/blk/prompt_reader.h"

#include <sys/uio.h>

#include <algorithm>

namespace cube::devices::blk {

bool PromptReader::Wanted() {
  if (skip_ == 0) return true;
  --skip_;
  return false;
}

void PromptReader::Missed() {
  skip_ = next_skip_;
  next_skip_ = std::min(2 * next_skip_, kMostSkipped);
}

bool PromptReader::Try(IoOperation* operation) {
  if (operation->kind != IoOperation::Kind::kRead || operation->size > kLargest || !Wanted()) {
    return false;
  }
  ssize_t n =
      preadv2(operation->fd, operation->buffers.data(), static_cast<int>(operation->buffers.size()),
              static_cast<off_t>(operation->offset), RWF_NOWAIT);
  // Errors too are the ring's to find: only what was read is sure.
  if (n <= 0) {
    Missed();
    return false;
  }
  Hit();
  operation->result = n;
  return true;
}

}  // namespace cube::devices::blk
