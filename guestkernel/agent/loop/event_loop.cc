#include "guestkernel/agent/loop/event_loop.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "base/monotonic.h"

namespace cube::agent {
namespace {

constexpr int kEventsAtOnce = 64;
constexpr uint64_t kMillisecond = 1'000'000;

// A descriptor's number is used again as soon as it is closed, and events for its former self may
// still be at hand then; so each use of a number has a generation.
uint64_t Key(int fd, uint32_t generation) {
  return static_cast<uint64_t>(generation) << 32 | static_cast<uint32_t>(fd);
}

}  // namespace

Result<std::unique_ptr<EventLoop>> EventLoop::Create() {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return ErrnoError("epoll_create1");
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll)));
}

Status EventLoop::Add(int fd, uint32_t events, Handler handler) {
  const size_t index = static_cast<size_t>(fd);
  if (entries_.size() <= index) entries_.resize(index + 1);
  Entry& entry = entries_[index];
  epoll_event event = {.events = events, .data = {.u64 = Key(fd, ++entry.generation)}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) return ErrnoError("epoll_ctl");
  entry.handler = std::make_shared<Handler>(std::move(handler));
  return OkStatus();
}

Status EventLoop::Modify(int fd, uint32_t events) {
  const uint32_t generation = entries_[static_cast<size_t>(fd)].generation;
  epoll_event event = {.events = events, .data = {.u64 = Key(fd, generation)}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) < 0) return ErrnoError("epoll_ctl");
  return OkStatus();
}

void EventLoop::Remove(int fd) {
  const size_t index = static_cast<size_t>(fd);
  if (fd < 0 || index >= entries_.size()) return;
  ++entries_[index].generation;
  entries_[index].handler.reset();
}

EventLoop::TimerId EventLoop::After(uint64_t nanoseconds, Task task) {
  TimerId id = {MonotonicNow() + nanoseconds, next_timer_++};
  timers_.emplace(id, std::move(task));
  return id;
}

void EventLoop::Cancel(TimerId timer) { timers_.erase(timer); }

void EventLoop::Defer(Task task) { deferred_.push_back(std::move(task)); }

Status EventLoop::Run() {
  while (true) {
    RunTimers();
    RunDeferred();
    bool sleep = sleeper_ == nullptr || sleeper_->BeforeSleep();
    if (std::exchange(stopped_, false)) return OkStatus();
    CUBE_TRY(Wait(sleep && deferred_.empty()));
  }
}

Status EventLoop::RunFor(uint64_t nanoseconds, const char* what) {
  bool late = false;
  TimerId limit = After(nanoseconds, [&] {
    late = true;
    Stop();
  });
  Status run = Run();
  Cancel(limit);
  CUBE_TRY(run);
  if (!late) return OkStatus();
  return Errorf("%s: not done within %llu s", what,
                static_cast<unsigned long long>(nanoseconds / 1'000'000'000));
}

Status EventLoop::Wait(bool sleep) {
  int timeout = sleep ? -1 : 0;
  if (sleep && !timers_.empty()) {
    const uint64_t now = MonotonicNow();
    const uint64_t due = timers_.begin()->first.first;
    // Rounded up: to wake before a timer is due would only be to sleep again.
    const uint64_t wait = due <= now ? 0 : (due - now + kMillisecond - 1) / kMillisecond;
    timeout = static_cast<int>(std::min<uint64_t>(wait, INT_MAX));
  }
  epoll_event events[kEventsAtOnce];
  int count = epoll_wait(epoll_.get(), events, kEventsAtOnce, timeout);
  if (count < 0 && errno != EINTR) return ErrnoError("epoll_wait");
  if (sleeper_ != nullptr) sleeper_->AfterSleep();
  for (int i = 0; i < count; ++i) Dispatch(events[i].data.u64, events[i].events);
  return OkStatus();
}

void EventLoop::Dispatch(uint64_t key, uint32_t events) {
  const size_t index = static_cast<uint32_t>(key);
  if (index >= entries_.size() || entries_[index].generation != key >> 32) return;
  std::shared_ptr<Handler> handler = entries_[index].handler;
  if (handler != nullptr) (*handler)(events);
}

void EventLoop::RunTimers() {
  if (timers_.empty()) return;
  const uint64_t now = MonotonicNow();
  // One that a timer sets is due later than `now`, so this ends.
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    Task task = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    task();
  }
}

void EventLoop::RunDeferred() {
  std::vector<Task> tasks = std::exchange(deferred_, {});
  for (Task& task : tasks) task();
}

}  // namespace cube::agent
