#ifndef CUBE_DEVICES_BLK_IO_ENGINE_H_
#define CUBE_DEVICES_BLK_IO_ENGINE_H_

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"

namespace cube::devices::blk {

// One operation on a file. It and its buffers stay where they are until it is done.
struct IoOperation {
  enum class Kind : uint8_t {
    kRead,      // preadv(2)
    kWrite,     // pwritev(2)
    kAllocate,  // fallocate(2) with `mode`
    kSync,      // fdatasync(2)
  };

  Kind kind;
  int fd;
  int mode;
  uint64_t offset;
  uint64_t size;             // bytes
  std::span<iovec> buffers;  // their sum is `size`
  void* owner;               // the submitter's
  int64_t result;            // when done: bytes moved, or a negative errno
};

// Does operations on files without keeping the event loop. Used under one lock. Operations are
// done in any order.
class IoEngine {
 public:
  enum class Kind {
    kAuto,  // io_uring, or a thread where the kernel or a sandbox does not allow it
    kUring,
    kThread,
  };
  // `depth` is how many operations are usually under way at once.
  static Result<std::unique_ptr<IoEngine>> Create(Kind kind, uint32_t depth);

  // Not before every operation is done.
  virtual ~IoEngine() = default;

  virtual const char* name() const = 0;
  // Becomes readable when operations are done, and stays so until Reap() has found one or
  // Acknowledge() was called.
  virtual int fd() const = 0;
  virtual void Acknowledge() = 0;
  // Takes an operation on; it may wait for Flush(). It may also be done when this returns, which only
  // the next Reap() says, not the descriptor.
  virtual void Submit(IoOperation* operation) = 0;
  // Sets off all that was submitted.
  virtual void Flush() = 0;
  // Appends what is done to `done`, without waiting.
  virtual void Reap(std::vector<IoOperation*>* done) = 0;
  // Waits until Reap() has something. Something must be under way.
  virtual void Wait() = 0;
};

}  // namespace cube::devices::blk

#endif  // CUBE_DEVICES_BLK_IO_ENGINE_H_
