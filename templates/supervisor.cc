#include "templates/supervisor.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <optional>

namespace cube::templates {

Result<int> Supervise(const std::function<int()>& work) {
  sigset_t waited, before;
  sigemptyset(&waited);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&waited, signal);
  if (sigprocmask(SIG_BLOCK, &waited, &before) < 0) return ErrnoError("sigprocmask");
  fflush(nullptr);
  const pid_t self = getpid();
  const pid_t child = fork();
  if (child < 0) return ErrnoError("fork");
  if (child == 0) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != self) _exit(1);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    int status = work();
    fflush(nullptr);
    _exit(status);
  }
  setpgid(child, child);  // whoever is first
  std::optional<int> interrupted;
  while (true) {
    int status = 0;
    pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) {
      // What it has started may live on for a moment, and would write where the caller cleans up.
      kill(-child, SIGKILL);
      if (interrupted) return Errorf("interrupted by signal %d", *interrupted);
      if (WIFEXITED(status)) return WEXITSTATUS(status);
      return Errorf("the process of the build was ended by signal %d", WTERMSIG(status));
    }
    int signal = sigwaitinfo(&waited, nullptr);
    if (signal <= 0 || signal == SIGCHLD) continue;
    interrupted = signal;
    kill(-child, SIGKILL);
  }
}

}  // namespace cube::templates
