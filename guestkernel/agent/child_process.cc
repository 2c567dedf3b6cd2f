#include "guestkernel/agent/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "guestkernel/agent/child_pipe.h"
#include "guestkernel/agent/launch.h"

namespace cube::agent {
namespace {

// Leads the session of a program on the console, and ends as it does. When a session's leader ends
// its terminal is hung up, and what was not yet sent is lost; so the program itself must not be it.
[[noreturn]] void LeadSession(Launch* launch, const char* console) {
  // What the agent has open is not to stay so for as long as the program runs.
  const unsigned report = static_cast<unsigned>(launch->report);
  if (report > 3) close_range(3, report - 1, 0);
  close_range(report + 1, ~0u, 0);
  setsid();
  int fd = open(console, O_RDWR);
  if (fd < 0) launch->Fail("open the console for");
  // Opening it gives a session leader its terminal only if no other session has it.
  ioctl(fd, TIOCSCTTY, 1);
  for (int i = 0; i < 3; ++i) dup2(fd, i);
  if (fd > 2) close(fd);
  // Of the background is whoever takes the foreground: it must not be stopped for that.
  sigset_t background;
  sigemptyset(&background);
  sigaddset(&background, SIGTTOU);
  sigprocmask(SIG_BLOCK, &background, nullptr);
  pid_t program = fork();
  if (program < 0) launch->Fail("start a process for");
  if (program == 0) {
    setpgid(0, 0);
    tcsetpgrp(STDIN_FILENO, getpid());
    launch->RunProgram();
  }
  close(launch->report);
  int status = 0;
  while (waitpid(program, &status, 0) < 0 && errno == EINTR) {
  }
  tcdrain(STDOUT_FILENO);
  if (WIFEXITED(status)) _exit(WEXITSTATUS(status));
  // Its death by the same signal is what the agent is to see.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  kill(getpid(), WTERMSIG(status));
  _exit(128 + WTERMSIG(status));
}

// Like Launch::Spawn(). The session's leader lives on, so memory cannot be shared with it: a pipe
// that closes by itself when the program runs brings the failure of one that does not.
pid_t SpawnOnConsole(Launch* launch, const char* console) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) < 0) return -1;
  UniqueFd reader(report[0]);
  UniqueFd writer(report[1]);
  launch->report = writer.get();
  pid_t pid = fork();
  if (pid == 0) LeadSession(launch, console);
  writer.Reset();
  if (pid > 0) launch->ReadReport(reader.get());
  return pid;
}

void SetFailure(StartFailure* failure, const char* doing, const std::string& name, int error) {
  failure->error = error;
  failure->text = Format("cannot %s '%s': %s", doing, name.c_str(), strerror(error));
}

}  // namespace

std::optional<ChildProcess> ChildProcess::Start(const StartRequest& request, const char* console,
                                                StartFailure* failure) {
  const std::string& name = request.arguments[0];
  ChildProcess child;
  UniqueFd theirs[3];
  Launch launch(request.arguments, request.variables, request.directory);
  if (!request.on_console) {
    if (!MakePipe(&child.input, &theirs[0], true) || !MakePipe(&child.output, &theirs[1], false) ||
        !MakePipe(&child.error, &theirs[2], false)) {
      SetFailure(failure, "make pipes for", name, errno);
      return std::nullopt;
    }
    for (int i = 0; i < 3; ++i) launch.fds[i] = theirs[i].get();
  }
  child.pid = request.on_console ? SpawnOnConsole(&launch, console) : launch.Spawn();
  if (child.pid < 0) {
    SetFailure(failure, "start a process for", name, errno);
    return std::nullopt;
  }
  if (launch.failed() != nullptr) {
    SetFailure(failure, launch.failed(), name, launch.error());
    return std::nullopt;
  }
  return child;
}

}  // namespace cube::agent
