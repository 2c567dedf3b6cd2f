#ifndef CUBE_BENCH_CLAIMS_TOGETHER_H_
#define CUBE_BENCH_CLAIMS_TOGETHER_H_

#include <functional>
#include <latch>
#include <mutex>
#include <thread>
#include <vector>

#include "base/result.h"

namespace cube::bench {

// What many threads do from the same moment on, and the first of their errors. Add() as often as
// said, LetGo(), Join(): all three, in that order, by one thread.
class Together {
 public:
  explicit Together(uint64_t count) : ready_(static_cast<std::ptrdiff_t>(count)), go_(1) {}
  ~Together() {
    for (std::thread& thread : threads_) thread.join();
  }
  Together(const Together&) = delete;
  Together& operator=(const Together&) = delete;

  // `connect` is called at once, in the thread, and `work` with what it made when all are let go.
  template <typename Connect, typename Work>
  void Add(Connect connect, Work work) {
    threads_.emplace_back([this, connect = std::move(connect), work = std::move(work)] {
      auto client = connect();
      ready_.count_down();
      go_.wait();
      Status status = client.ok() ? work(&*client) : Status(client.error());
      if (status.ok()) return;
      std::lock_guard<std::mutex> guard(mutex_);
      if (first_.ok()) first_ = status;
    });
  }
  // Waits until each has connected.
  void LetGo() {
    ready_.wait();
    go_.count_down();
  }
  Status Join() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    return first_;
  }
  // For what the works share.
  std::mutex* mutex() { return &mutex_; }

 private:
  std::latch ready_, go_;
  std::mutex mutex_;
  Status first_;
  std::vector<std::thread> threads_;
};

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_TOGETHER_H_
