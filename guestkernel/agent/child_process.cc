#include "guestkernel/agent/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
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
  // Set by the child if it fails. Volatile, because the compiler does not know that what a function
  // stores before it exits for good can be seen by anyone.
  volatile int error;
  const char* volatile failed;  // what it could not do
};

[[noreturn]] void Fail(Plan* plan, const char* doing) {
  plan->error = errno;
  plan->failed = doing;
  _exit(127);
}

[[noreturn]] void RunChild(Plan* plan) {
  setsid();
  if (plan->console != nullptr) {
    int fd = open(plan->console, O_RDWR);
    if (fd < 0) Fail(plan, "open the console for");
    // Opening it gives a session leader its terminal only if no other session has it.
    ioctl(fd, TIOCSCTTY, 1);
    for (int i = 0; i < 3; ++i) dup2(fd, i);
    if (fd > 2) close(fd);
  } else {
    // The pipes' ends are all above 2, which the agent keeps open, so no dup2 undoes another; it
    // also clears close-on-exec.
    for (int i = 0; i < 3; ++i) dup2(plan->fds[i], i);
  }
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
  if (pid == 0) RunChild(plan);
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
  child.pid = Spawn(&plan);
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
