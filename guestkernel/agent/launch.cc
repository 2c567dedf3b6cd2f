#include "guestkernel/agent/launch.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

namespace cube::agent {
namespace {

constexpr std::string_view kDefaultPath =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// How many files a program may open before it asks for more: select(2) cannot do with more.
constexpr rlim_t kFiles = 1024;

std::string_view Path(const std::vector<std::string>& variables) {
  constexpr std::string_view kName = "PATH=";
  for (const std::string& variable : variables) {
    if (variable.starts_with(kName)) return std::string_view(variable).substr(kName.size());
  }
  return kDefaultPath;
}

std::vector<std::string> FindPrograms(const std::string& name, std::string_view path) {
  if (name.find('/') != std::string::npos) return {name};
  std::vector<std::string> programs;
  while (true) {
    const size_t colon = path.find(':');
    std::string program(path.substr(0, colon));
    if (program.empty()) program = ".";
    program += '/';
    program += name;
    programs.push_back(std::move(program));
    if (colon == std::string_view::npos) return programs;
    path.remove_prefix(colon + 1);
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

// The agent has more for itself: its clients' sockets are files too.
rlimit FileLimit() {
  rlimit limit = {.rlim_cur = kFiles, .rlim_max = kFiles};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min(limit.rlim_max, kFiles);
  return limit;
}

}  // namespace

Launch::Launch(const std::vector<std::string>& arguments, const std::vector<std::string>& variables,
               const std::string& directory)
    : programs_(FindPrograms(arguments[0], Path(variables))),
      program_pointers_(Pointers(programs_)),
      arguments_(Pointers(arguments)),
      variables_(Pointers(variables)),
      directory_(directory.empty() ? "/" : directory.c_str()) {
  static const rlimit files = FileLimit();
  files_ = files;
}

void Launch::Fail(const char* doing) {
  error_ = errno;
  failed_ = doing;
  // A child that shares no memory with the agent says it this way; the other has no pipe.
  if (report >= 0) {
    const Report text = {error_, failed_};
    [[maybe_unused]] ssize_t size = write(report, &text, sizeof text);
  }
  _exit(127);
}

void Launch::ReadReport(int fd) {
  Report text = {};
  ssize_t size;
  while ((size = read(fd, &text, sizeof text)) < 0 && errno == EINTR) {
  }
  if (size != sizeof text) return;
  error_ = text.error;
  failed_ = text.failed;
}

void Launch::RunProgram() {
  setrlimit(RLIMIT_NOFILE, &files_);
  // The calls themselves: the library's would have every thread of the parent make them too.
  if (credentials != nullptr && (credentials->uid != 0 || !credentials->groups.empty())) {
    const Credentials& who = *credentials;
    if (syscall(SYS_setgroups, who.groups.size(), who.groups.data()) < 0 ||
        syscall(SYS_setresgid, who.gid, who.gid, who.gid) < 0 ||
        syscall(SYS_setresuid, who.uid, who.uid, who.uid) < 0) {
      Fail("become the user of");
    }
  }
  if (chdir(directory_) < 0) Fail("enter the working directory of");
  // The agent catches nothing and ignores nothing, it only blocks: no handler is to be reset.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  int error = ENOENT;
  for (char* const* program = program_pointers_.data(); *program != nullptr; ++program) {
    execve(*program, arguments_.data(), variables_.data());
    // As a shell does: look on where it is not, but remember that it was not allowed.
    if (errno == EACCES) {
      error = EACCES;
    } else if (errno != ENOENT && errno != ENOTDIR) {
      error = errno;
      break;
    }
  }
  errno = error;
  Fail("run");
}

// vfork() in a frame of its own, with nothing in it for the child to spoil.
[[gnu::noinline]] pid_t Launch::Spawn() {
  pid_t pid = vfork();
  if (pid != 0) return pid;
  setsid();
  if (terminal && ioctl(fds[0], TIOCSCTTY, 0) < 0) Fail("give a terminal to");
  // These are all above 2, which the agent keeps open, so no dup2 undoes another; it also clears
  // close-on-exec.
  for (int i = 0; i < 3; ++i) dup2(fds[i], i);
  RunProgram();
}

}  // namespace cube::agent
