#ifndef CUBE_GUESTKERNEL_AGENT_INTERPRETER_PYTHON_ZYGOTE_H_
#define CUBE_GUESTKERNEL_AGENT_INTERPRETER_PYTHON_ZYGOTE_H_

#include <sys/types.h>

#include <functional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/interpreter/worker.h"

namespace cube::agent::interpreter {

// A Python process with all that users import loaded, which becomes a context by fork: that takes
// milliseconds, and a start from nothing takes seconds. Of the loop's thread.
class PythonZygote {
 public:
  // Starts the process with descriptor 0 for its control socket.
  using Launcher = std::function<Result<pid_t>(int control)>;

  explicit PythonZygote(Launcher launch) : launch_(std::move(launch)) {}

  // Has a context made in `directory` that has the worker's ends of `pipes`, when the zygote is
  // warm. Starts the zygote if it does not run. Whether it succeeds is seen by the pipes. A `warm`
  // context has run cells itself, so that it writes to fewer pages that it shares with the zygote.
  Status Fork(const std::string& directory, const WorkerPipes& pipes, bool warm);
  // Kills the process, if there is one.
  void Stop();

 private:
  Status Start();
  bool Send(const std::string& directory, const WorkerPipes& pipes, bool warm);

  Launcher launch_;
  UniqueFd control_;
  pid_t pid_ = 0;
};

}  // namespace cube::agent::interpreter

#endif  // CUBE_GUESTKERNEL_AGENT_INTERPRETER_PYTHON_ZYGOTE_H_
