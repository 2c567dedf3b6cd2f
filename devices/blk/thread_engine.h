#ifndef CUBE_DEVICES_BLK_THREAD_ENGINE_H_
#define CUBE_DEVICES_BLK_THREAD_ENGINE_H_

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "base/unique_fd.h"
#include "devices/blk/io_engine.h"

namespace cube::devices::blk {

// Operations by one thread, one after the other, where io_uring is not to be had.
class ThreadEngine : public IoEngine {
 public:
  static Result<std::unique_ptr<IoEngine>> Create();
  ~ThreadEngine() override;

  const char* name() const override { return "thread"; }
  int fd() const override { return event_.get(); }
  void Acknowledge() override { DrainEventFd(event_.get()); }
  void Submit(IoOperation* operation) override;
  void Flush() override {}
  void Reap(std::vector<IoOperation*>* done) override;
  void Wait() override;

 private:
  ThreadEngine() = default;
  void Run();

  UniqueFd event_;
  std::mutex mutex_;
  std::condition_variable submitted_;
  std::condition_variable finished_;
  std::deque<IoOperation*> waiting_;
  std::vector<IoOperation*> done_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace cube::devices::blk

#endif  // CUBE_DEVICES_BLK_THREAD_ENGINE_H_
