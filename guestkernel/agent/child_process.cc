#include "guestkernel/agent/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

namespace cube::agent {
namespace {

constexpr char kDefaultPath[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// Everything the child needs, made by its parent: between vfork() and execve() the two share their
// memory, so that the child may do nothing but system calls.
struct Plan {
  const char* const* programs;  // to be tried in this order, up to a null
  char* const* arguments;
  char* const* variables;
  const char* directory;
  const char* console;  // null if fds are to be used
  int fds[3];
  int report;  // where a failure goes if memory is not shared; -1 if it is
  // Set by the child if it fails. Volatile, because the compiler does not know that what a function
  // stores before it exits for good can be seen by anyone.
  volatile int error;
  const char* volatile failed;  // what it could not do
};

[[noreturn]] void Fail(Plan* plan, const char* doing) {
  plan->error = errno;
  plan->failed = doing;
  // A child that shares no memory with the agent says it this way; the other has no pipe.
  if (plan->report >= 0) {
    [[maybe_unused]] ssize_t size = write(plan->report, plan, sizeof *plan);
  }
  _exit(127);
}

[[noreturn]] void RunProgram(Plan* plan) {
  if (chdir(plan->directory) < 0) Fail(plan, "enter the working directory of");
  // The agent catches nothing and ignores nothing, it only blocks: no handler is to be reset.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  int error = ENOENT;
  for (const char* const* program = plan->programs; *program != nullptr; ++program) {
    execve(*program, plan->arguments, plan->variables);
    // As a shell does: look on where it is not, but remember that it was not allowed.
    if (errno == EACCES) {
      error = EACCES;
    } else if (errno != ENOENT && errno != ENOTDIR) {
      error = errno;
      break;
    }
  }
  errno = error;
  Fail(plan, "run");
}

// vfork() in a frame of its own, with nothing in it for the child to spoil.
[[gnu::noinline]] pid_t Spawn(Plan* plan) {
  pid_t pid = vfork();
  if (pid != 0) return pid;
  setsid();
  // The pipes' ends are all above 2, which the agent keeps open, so no dup2 undoes another; it also
  // clears close-on-exec.
  for (int i = 0; i < 3; ++i) dup2(plan->fds[i], i);
  RunProgram(plan);
}

// Leads the session of a program on the console, and ends as it does. When a session's leader ends
// its terminal is hung up, and what was not yet sent is lost; so the program itself must not be it.
[[noreturn]] void LeadSession(Plan* plan) {
  setsid();
  int fd = open(plan->console, O_RDWR);
  if (fd < 0) Fail(plan, "open the console for");
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
  if (program < 0) Fail(plan, "start a process for");
  if (program == 0) {
    setpgid(0, 0);
    tcsetpgrp(STDIN_FILENO, getpid());
    RunProgram(plan);
  }
  close(plan->report);
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

// Like Spawn(). The session's leader lives on, so memory cannot be shared with it: a pipe that
// closes by itself when the program runs brings the plan of one that failed.
pid_t SpawnOnConsole(Plan* plan) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) < 0) return -1;
  UniqueFd reader(report[0]);
  UniqueFd writer(report[1]);
  plan->report = writer.get();
  pid_t pid = fork();
  if (pid == 0) LeadSession(plan);
  writer.Reset();
  Plan failed = *plan;
  ssize_t size;
  while ((size = read(reader.get(), &failed, sizeof failed)) < 0 && errno == EINTR) {
  }
  if (pid > 0 && size == sizeof failed) {
    plan->error = failed.error;
    plan->failed = failed.failed;
  }
  return pid;
}

std::vector<std::string> FindPrograms(const StartRequest& request) {
  const std::string& name = request.arguments[0];
  if (name.find('/') != std::string::npos) return {name};
  const char* path = request.Variable("PATH");
  std::string_view rest = path != nullptr ? path : kDefaultPath;
  std::vector<std::string> programs;
  while (true) {
    size_t colon = rest.find(':');
    std::string program(rest.substr(0, colon));
    if (program.empty()) program = ".";
    program += '/';
    program += name;
    programs.push_back(std::move(program));
    if (colon == std::string_view::npos) return programs;
    rest.remove_prefix(colon + 1);
  }
}

// execve(2) promises not to change the strings, whatever its type says.
std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  pointers.reserve(strings.size() + 1);
  for (const std::string& text : strings) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

bool MakePipe(UniqueFd* ours, UniqueFd* theirs, bool we_write) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0) return false;
  ours->Reset(fds[we_write ? 1 : 0]);
  theirs->Reset(fds[we_write ? 0 : 1]);
  // Ours only: a program does not expect that its stdout can be "not ready".
  return fcntl(ours->get(), F_SETFL, O_NONBLOCK) == 0;
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
  Plan plan = {};
  plan.report = -1;
  if (request.on_console) {
    plan.console = console;
  } else {
    if (!MakePipe(&child.input, &theirs[0], true) || !MakePipe(&child.output, &theirs[1], false) ||
        !MakePipe(&child.error, &theirs[2], false)) {
      SetFailure(failure, "make pipes for", name, errno);
      return std::nullopt;
    }
    for (int i = 0; i < 3; ++i) plan.fds[i] = theirs[i].get();
  }
  std::vector<std::string> programs = FindPrograms(request);
  std::vector<char*> program_pointers = Pointers(programs);
  std::vector<char*> arguments = Pointers(request.arguments);
  std::vector<char*> variables = Pointers(request.variables);
  plan.programs = program_pointers.data();
  plan.arguments = arguments.data();
  plan.variables = variables.data();
  plan.directory = request.directory.empty() ? "/" : request.directory.c_str();
  child.pid = request.on_console ? SpawnOnConsole(&plan) : Spawn(&plan);
  if (child.pid < 0) {
    SetFailure(failure, "start a process for", name, errno);
    return std::nullopt;
  }
  if (plan.failed != nullptr) {
    // The child is dead already, or will be at once; whoever reaps children reaps it too.
    SetFailure(failure, plan.failed, name, plan.error);
    return std::nullopt;
  }
  return child;
}

}  // namespace cube::agent
