#ifndef CUBE_DEVICES_BLK_PROMPT_READER_H_
#define CUBE_DEVICES_BLK_PROMPT_READER_H_

#include <cstdint>

#include "devices/blk/io_engine.h"

namespace cube::devices::blk {

// Reads from the host's page cache at once, on the caller's thread: one system call without waiting
// (RWF_NOWAIT), where io_uring takes its own, signals its eventfd and has that read as well. What
// is not in the cache is the ring's; after each such read the next ones are not even tried, twice
// as many each time, so that a disk that is read from its medium pays for few of these calls. Used
// under one lock.
class PromptReader {
 public:
  static constexpr uint64_t kLargest = 128 << 10;  // bytes
  static constexpr uint32_t kMostSkipped = 64;     // reads

  // Carries `operation` out, perhaps in part, and sets its result, or returns false: it is the
  // ring's.
  bool Try(IoOperation* operation);

  // Whether the next read is tried.
  bool Wanted();
  // How one that was tried ended.
  void Hit() { next_skip_ = 1; }
  void Missed();

 private:
  uint32_t skip_ = 0;       // reads not to try
  uint32_t next_skip_ = 1;  // how many after the next miss
};

}  // namespace cube::devices::blk

#endif  // CUBE_DEVICES_BLK_PROMPT_READER_H_
