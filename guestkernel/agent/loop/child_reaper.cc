#include "guestkernel/agent/loop/child_reaper.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace cube::agent {

Result<std::unique_ptr<ChildReaper>> ChildReaper::Create(EventLoop* loop) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGPIPE);
  sigaddset(&blocked, SIGCHLD);
  if (sigprocmask(SIG_BLOCK, &blocked, nullptr) < 0) return ErrnoError("sigprocmask");
  sigdelset(&blocked, SIGPIPE);
  UniqueFd signals(signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals.valid()) return ErrnoError("signalfd");
  std::unique_ptr<ChildReaper> reaper(new ChildReaper(loop, std::move(signals)));
  ChildReaper* raw = reaper.get();
  CUBE_TRY(loop->Add(raw->signals_.get(), EPOLLIN, [raw](uint32_t) { raw->Reap(); }));
  return reaper;
}

ChildReaper::~ChildReaper() { loop_->Remove(signals_.get()); }

void ChildReaper::Reap() {
  // The signal stays pending, and the descriptor ready, until it is read.
  signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof info) < 0 && errno == EINTR) {
  }
  while (true) {
    int status = 0;
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) return;
    auto child = children_.find(pid);
    if (child == children_.end()) continue;  // an orphan
    OnEnd on_end = std::move(child->second);
    children_.erase(child);
    on_end(status);
  }
}

}  // namespace cube::agent
