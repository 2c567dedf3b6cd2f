#ifndef CUBE_DEVICES_BLK_PROMPT_WRITER_H_
#define CUBE_DEVICES_BLK_PROMPT_WRITER_H_

#include <cstdint>

#include "devices/blk/io_engine.h"

namespace cube::devices::blk {

// Writes to the host's page cache at once, on the caller's thread, where io_uring would wake a
// kernel thread for each write: file systems whose buffered writes may wait (ext4) leave it no
// other way.
//
// Such a write is a copy, unless the host makes writers wait: dirty pages above its threshold, a
// journal that is full, a page under write-back. That is seen by the time a write took; for a
// multiple of it all writes go by the ring, so that waiting never takes more than a ninth of the
// caller's time. Used under one lock.
class PromptWriter {
 public:
  static constexpr uint64_t kLargest = 128 << 10;  // bytes; larger ones may as well be handed over
  static constexpr int64_t kSlow = 1'000'000;      // ns, what no copy of kLargest takes
  static constexpr int64_t kRest = 8;              // times what a slow one took

  // Carries `operation` out and sets its result, or returns false: it is the ring's.
  bool Try(IoOperation* operation);

  // Whether writes are carried out at the time `now`, in ns.
  bool Allowed(int64_t now) const { return now >= resume_; }
  // One took from `start` to `end`, in ns.
  void Took(int64_t start, int64_t end);

 private:
  enum class FileSystem : uint8_t {
    kUnknown,
    kMayWait,      // has no writes without waiting (RWF_NOWAIT)
    kNeedNotWait,  // io_uring does them without waiting, many by one system call
  };

  int fd_ = -1;
  FileSystem file_system_ = FileSystem::kUnknown;
  int64_t resume_ = 0;
};

}  // namespace cube::devices::blk

#endif  // CUBE_DEVICES_BLK_PROMPT_WRITER_H_
