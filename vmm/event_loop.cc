#include "vmm/event_loop.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <cerrno>

namespace cube::vmm {

Result<EventLoop> EventLoop::Create() {
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return ErrnoError("epoll_create1");
  CUBE_ASSIGN(UniqueFd stop, NewEventFd());
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.fd = stop.get();
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, stop.get(), &event) < 0) return ErrnoError("epoll_ctl");
  return EventLoop(std::move(epoll), std::move(stop));
}

Status EventLoop::Add(int fd, uint32_t events, Handler handler) {
  epoll_event event = {};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) {
    return ErrnoError("cannot wait for descriptor %d", fd);
  }
  handlers_[fd] = std::make_shared<Handler>(std::move(handler));
  return OkStatus();
}

Status EventLoop::Modify(int fd, uint32_t events) {
  epoll_event event = {};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) < 0) {
    return ErrnoError("cannot wait for descriptor %d", fd);
  }
  return OkStatus();
}

void EventLoop::Remove(int fd) {
  if (handlers_.erase(fd) != 0) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

Status EventLoop::Run() {
  for (;;) {
    CUBE_ASSIGN(bool stopped, RunOnce(-1));
    if (stopped) return OkStatus();
  }
}

Result<bool> EventLoop::RunOnce(int milliseconds) {
  epoll_event events[16];
  int count = epoll_wait(epoll_.get(), events, 16, milliseconds);
  if (count < 0 && errno == EINTR) return false;
  if (count < 0) return ErrnoError("epoll_wait");
  bool stopped = false;
  for (int i = 0; i < count && !stopped; ++i) {
    int fd = events[i].data.fd;
    if (fd == stop_.get()) {
      DrainEventFd(fd);
      stopped = true;
      continue;
    }
    // Looked up anew for each: an earlier handler of this round may have removed it.
    auto found = handlers_.find(fd);
    if (found == handlers_.end()) continue;
    std::shared_ptr<Handler> handler = found->second;
    (*handler)(events[i].events);
    if (leaving_) return true;
  }
  return stopped;
}

Result<Timer> Timer::Create() {
  UniqueFd fd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!fd.valid()) return ErrnoError("timerfd_create");
  return Timer(std::move(fd));
}

Status Timer::Set(uint64_t nanoseconds) const {
  itimerspec spec = {};
  spec.it_value.tv_sec = static_cast<time_t>(nanoseconds / 1000000000);
  spec.it_value.tv_nsec = static_cast<long>(nanoseconds % 1000000000);
  if (timerfd_settime(fd_.get(), 0, &spec, nullptr) < 0) return ErrnoError("timerfd_settime");
  return OkStatus();
}

}  // namespace cube::vmm
