#ifndef CUBE_VMM_CLI_SANDBOX_FORKS_H_
#define CUBE_VMM_CLI_SANDBOX_FORKS_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/cli/control_server.h"
#include "vmm/event_loop.h"

namespace cube::vmm {

// Forks of this sandbox that are under way. The parent's process forks once, while its vCPUs stand
// still; that process forks the children and ends. Each child makes a machine over the memory it
// has inherited and says on a pipe that it is ready. On the event loop's thread.
class SandboxForks {
 public:
  static constexpr uint64_t kMaxChildren = 100;

  // Two ends of a pipe from the children to their parent, which reads without waiting.
  struct Pipe {
    UniqueFd reader, writer;
  };
  static Result<Pipe> MakePipe();

  // In the process that the parent has forked: forks `count` children and ends. Returns in each of
  // them, which belongs to no terminal: which one it is, from 0.
  static uint64_t Multiply(uint64_t count, int report);

  // `loop` and `server` outlive it.
  SandboxForks(EventLoop* loop, ControlServer* server) : loop_(loop), server_(server) {}
  ~SandboxForks();
  SandboxForks(const SandboxForks&) = delete;
  SandboxForks& operator=(const SandboxForks&) = delete;

  // A fork as the parent sees it.
  struct Pending {
    pid_t forker = -1;  // the process that forks the children
    UniqueFd reports;
    ControlConnection* to = nullptr;  // who waits for the answer
    uint64_t count = 0;
    double pause_ms = 0;  // of the parent's guest
    uint64_t asked = 0;   // CLOCK_MONOTONIC nanoseconds
    std::string text;     // of the reports so far
  };
  // Answers once all children have reported or ended.
  Status Await(Pending pending);

 private:
  void OnReport(int fd);

  EventLoop* loop_;
  ControlServer* server_;
  std::map<int, Pending> pending_;
};

// What a child says to its parent, a line: that it is ready.
std::string ForkReport(const std::string& id, uint64_t asked, uint64_t made, uint64_t ready);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_SANDBOX_FORKS_H_
