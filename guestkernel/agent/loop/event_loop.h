#ifndef CUBE_GUESTKERNEL_AGENT_LOOP_EVENT_LOOP_H_
#define CUBE_GUESTKERNEL_AGENT_LOOP_EVENT_LOOP_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::agent {

// The agent's one event loop: descriptors, timers and tasks for the end of a turn. All calls belong
// to the thread that runs it. It is made to sleep with one system call and to need none besides:
// timers are the time limit of that call, and a descriptor that is closed needs no farewell.
class EventLoop {
 public:
  using Handler = std::function<void(uint32_t events)>;
  using Task = std::function<void()>;
  using TimerId = std::pair<uint64_t, uint64_t>;  // when it is due, and a number of its own
  static constexpr TimerId kNoTimer = {0, 0};

  // Asked before the loop sleeps and told after.
  class Sleeper {
   public:
    virtual ~Sleeper() = default;
    // False if there is more to do: the loop then looks for events, but does not wait for them.
    virtual bool BeforeSleep() = 0;
    virtual void AfterSleep() = 0;
  };

  static Result<std::unique_ptr<EventLoop>> Create();

  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Calls `handler` with the events of epoll_ctl(2) that `fd` is ready for.
  Status Add(int fd, uint32_t events, Handler handler);
  // Changes what is waited for; that `fd` may be ready for already is reported again.
  Status Modify(int fd, uint32_t events);
  // Calls `fd`'s handler no more; its handler may call this. The caller then closes `fd`, of which
  // no duplicate is open: that is what takes it out of the kernel's set.
  void Remove(int fd);

  // Calls `task` once, `nanoseconds` from now.
  TimerId After(uint64_t nanoseconds, Task task);
  // Calls it no more. Without effect if it has been called, or for kNoTimer.
  void Cancel(TimerId timer);

  // Calls `task` when the events at hand have been handled; one that is deferred by such a task has
  // its turn after the next look for events.
  void Defer(Task task);

  // `sleeper` outlives the loop.
  void SetSleeper(Sleeper* sleeper) { sleeper_ = sleeper; }

  // Handles events until Stop(); may be called again. An error means that the kernel refuses to
  // wait.
  Status Run();
  void Stop() { stopped_ = true; }
  // Run(), but not for longer than `nanoseconds`: then an error says that `what` has not been done.
  Status RunFor(uint64_t nanoseconds, const char* what);

 private:
  struct Entry {
    uint32_t generation = 0;
    std::shared_ptr<Handler> handler;  // shared, so that one that removes itself lives on
  };

  explicit EventLoop(UniqueFd epoll) : epoll_(std::move(epoll)) {}

  Status Wait(bool sleep);
  void Dispatch(uint64_t key, uint32_t events);
  void RunTimers();
  void RunDeferred();

  UniqueFd epoll_;
  Sleeper* sleeper_ = nullptr;
  bool stopped_ = false;
  std::vector<Entry> entries_;  // by descriptor
  std::map<TimerId, Task> timers_;
  uint64_t next_timer_ = 1;
  std::vector<Task> deferred_;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_LOOP_EVENT_LOOP_H_
