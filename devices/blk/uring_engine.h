#ifndef CUBE_DEVICES_BLK_URING_ENGINE_H_
#define CUBE_DEVICES_BLK_URING_ENGINE_H_

#include <liburing.h>

#include <deque>

#include "base/unique_fd.h"
#include "devices/blk/io_engine.h"
#include "devices/blk/prompt_reader.h"
#include "devices/blk/prompt_writer.h"

namespace cube::devices::blk {

// Operations by io_uring(7): one system call for all that were submitted. What the page cache can
// serve at once, and writes that would need a kernel thread, Submit() does itself.
class UringEngine : public IoEngine {
 public:
  static Result<std::unique_ptr<IoEngine>> Create(uint32_t depth);
  ~UringEngine() override;

  const char* name() const override { return "io_uring"; }
  int fd() const override { return event_.get(); }
  void Acknowledge() override { DrainEventFd(event_.get()); }
  void Submit(IoOperation* operation) override;
  void Flush() override;
  void Reap(std::vector<IoOperation*>* done) override;
  void Wait() override;

 private:
  UringEngine() = default;
  bool Prepare(IoOperation* operation);

  io_uring ring_ = {};
  bool ring_made_ = false;
  UniqueFd event_;
  PromptReader reader_;
  PromptWriter writer_;
  std::vector<IoOperation*> prompt_;   // done by these, and not reaped
  std::deque<IoOperation*> overflow_;  // there was no room in the ring
};

}  // namespace cube::devices::blk

#endif  // CUBE_DEVICES_BLK_URING_ENGINE_H_
