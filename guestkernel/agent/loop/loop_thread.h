#ifndef CUBE_GUESTKERNEL_AGENT_LOOP_LOOP_THREAD_H_
#define CUBE_GUESTKERNEL_AGENT_LOOP_LOOP_THREAD_H_

#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <thread>

#include "base/unique_fd.h"
#include "guestkernel/agent/loop/child_reaper.h"
#include "guestkernel/agent/loop/event_loop.h"
#include "guestkernel/agent/loop/listener.h"

namespace cube::agent {

// For tests: a loop with a thread of its own, so that the test can be its client. Signals that the
// loop takes by a descriptor are blocked in the test's thread as well.
class LoopThread {
 public:
  LoopThread() {
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigaddset(&blocked, SIGPIPE);
    sigprocmask(SIG_BLOCK, &blocked, nullptr);
    reaper = ChildReaper::Create(loop.get()).value();
    if (!loop->Add(stop_.get(), EPOLLIN, [this](uint32_t) { loop->Stop(); }).ok()) abort();
  }
  ~LoopThread() { Join(); }

  // After everything on the loop has been set up.
  void Start() {
    thread_ = std::thread([this] {
      if (!loop->Run().ok()) abort();
    });
  }
  // Before anything on the loop is taken down.
  void Join() {
    if (!thread_.joinable()) return;
    SignalEventFd(stop_.get());
    thread_.join();
  }

  std::unique_ptr<EventLoop> loop = EventLoop::Create().value();
  std::unique_ptr<ChildReaper> reaper;

 private:
  UniqueFd stop_ = NewEventFd().value();
  std::thread thread_;
};

// For tests: a Unix socket that listens, at a name the kernel makes up, and clients of it.
class LocalListener {
 public:
  LocalListener() : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr family = {};
    family.sa_family = AF_UNIX;
    if (bind(socket_.get(), &family, sizeof family.sa_family) < 0) abort();
    size_ = sizeof address_;
    if (getsockname(socket_.get(), Address(), &size_) < 0) abort();
    if (listen(socket_.get(), 1024) < 0) abort();
  }

  UniqueFd Take() { return std::move(socket_); }

  UniqueFd Connect() {
    UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(client.get(), Address(), size_) < 0) abort();
    // A test that waits in vain fails.
    const timeval limit = {60, 0};
    setsockopt(client.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(client.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    return client;
  }

 private:
  sockaddr* Address() { return reinterpret_cast<sockaddr*>(&address_); }

  UniqueFd socket_;
  sockaddr_storage address_ = {};
  socklen_t size_ = 0;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_LOOP_LOOP_THREAD_H_
