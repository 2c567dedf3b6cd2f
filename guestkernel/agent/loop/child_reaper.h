#ifndef CUBE_GUESTKERNEL_AGENT_LOOP_CHILD_REAPER_H_
#define CUBE_GUESTKERNEL_AGENT_LOOP_CHILD_REAPER_H_

#include <sys/types.h>

#include <functional>
#include <memory>
#include <unordered_map>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/loop/event_loop.h"

namespace cube::agent {

// Reaps every child of the process, orphans that PID 1 inherits too, and tells whoever started one
// how it ended. Of the loop's thread.
class ChildReaper {
 public:
  // As waitpid(2) gives it.
  using OnEnd = std::function<void(int wait_status)>;

  // Blocks SIGCHLD, which it takes through a descriptor, and SIGPIPE; other threads of the process,
  // if any, have to block both. `loop` outlives the reaper.
  static Result<std::unique_ptr<ChildReaper>> Create(EventLoop* loop);
  ~ChildReaper();

  ChildReaper(const ChildReaper&) = delete;
  ChildReaper& operator=(const ChildReaper&) = delete;

  // Calls `on_end` when child `pid`, which was started in this turn of the loop, has ended.
  void Watch(pid_t pid, OnEnd on_end) { children_[pid] = std::move(on_end); }
  // Calls it no more; the child is reaped all the same.
  void Forget(pid_t pid) { children_.erase(pid); }

 private:
  ChildReaper(EventLoop* loop, UniqueFd signals) : loop_(loop), signals_(std::move(signals)) {}

  void Reap();

  EventLoop* loop_;
  UniqueFd signals_;
  std::unordered_map<pid_t, OnEnd> children_;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_LOOP_CHILD_REAPER_H_
