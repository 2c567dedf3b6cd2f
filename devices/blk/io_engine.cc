#include "devices/blk/io_engine.h"

#include "devices/blk/thread_engine.h"
#include "devices/blk/uring_engine.h"

namespace cube::devices::blk {

Result<std::unique_ptr<IoEngine>> IoEngine::Create(Kind kind, uint32_t depth) {
  if (kind != Kind::kThread) {
    auto uring = UringEngine::Create(depth);
    if (uring.ok() || kind == Kind::kUring) return uring;
  }
  return ThreadEngine::Create();
}

}  // namespace cube::devices::blk
