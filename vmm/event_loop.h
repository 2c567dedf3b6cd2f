#ifndef CUBE_VMM_EVENT_LOOP_H_
#define CUBE_VMM_EVENT_LOOP_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::vmm {

// The VM's one event loop, an epoll set of descriptors and what to do when they are ready. All
// calls belong to the thread that runs it, except Stop().
class EventLoop {
 public:
  using Handler = std::function<void(uint32_t events)>;

  static Result<EventLoop> Create();

  // Calls `handler` with EPOLLIN and the like whenever `fd`, which the caller keeps open until
  // Remove(), is ready, level-triggered unless `events` has EPOLLET. `events` of 0 waits for errors
  // and hang-up only.
  Status Add(int fd, uint32_t events, Handler handler);
  Status Modify(int fd, uint32_t events);
  // A handler may remove any descriptor, its own too.
  void Remove(int fd);

  // Handles events until Stop().
  Status Run();
  // Waits for events at most `milliseconds`, -1 for ever, and handles those that are there. True
  // once Stop() was called.
  Result<bool> RunOnce(int milliseconds);
  void Stop() { SignalEventFd(stop_.get()); }
  // From a handler: Run() and RunOnce() return as soon as it does. In the child of a fork, whose
  // descriptors are its parent's too, so that Stop() would stop that one as well.
  void Leave() { leaving_ = true; }

 private:
  EventLoop(UniqueFd epoll, UniqueFd stop) : epoll_(std::move(epoll)), stop_(std::move(stop)) {}

  UniqueFd epoll_;
  UniqueFd stop_;
  bool leaving_ = false;
  // Shared so that a handler which removes itself lives until it returns.
  std::map<int, std::shared_ptr<Handler>> handlers_;
};

// A one-shot timer: a timerfd (monotonic clock), unset at first.
class Timer {
 public:
  static Result<Timer> Create();
  // Fires once, `nanoseconds` from now; 0 unsets it.
  Status Set(uint64_t nanoseconds) const;
  // Takes the expiry, so that a level-triggered wait does not report it again.
  void Acknowledge() const { DrainEventFd(fd_.get()); }
  int fd() const { return fd_.get(); }

 private:
  explicit Timer(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_EVENT_LOOP_H_
