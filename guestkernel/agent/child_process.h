#ifndef CUBE_GUESTKERNEL_AGENT_CHILD_PROCESS_H_
#define CUBE_GUESTKERNEL_AGENT_CHILD_PROCESS_H_

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/unique_fd.h"
#include "guestkernel/agent/start_request.h"

namespace cube::agent {

// Why a child does not run: an errno for the caller's program, a line for its user.
struct StartFailure {
  int error = 0;
  std::string text;
};

// A started child, leader of a session and process group of its own, and the agent's ends of its
// pipes. The ends do not block. Without pipes if the child has the console.
struct ChildProcess {
  // Starts a child as vfork(2) does, without copying page tables; the child has run execve(2) when
  // this returns. It gets an empty signal mask. If it is to have a console, that is the terminal at
  // `console`, which becomes its controlling terminal. Nothing, and why, if it cannot be started.
  static std::optional<ChildProcess> Start(const StartRequest& request, const char* console,
                                           StartFailure* failure);

  pid_t pid = -1;
  UniqueFd input;
  UniqueFd output;
  UniqueFd error;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_CHILD_PROCESS_H_
