#include "guestkernel/agent/tools/warm_up.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/byte_io.h"
#include "base/control_abi.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/log.h"

namespace cube::agent {
namespace {

constexpr char kReadyLog[] = "/run/cube-ready.log";
constexpr int kPauseMs = 100;   // between two attempts to find it ready
constexpr int kAliveMs = 1000;  // what is not asked for readiness has to live as long
constexpr size_t kTail = 2000;

int64_t NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

class Child {
 public:
  // Runs `command` with the shell; what it writes goes to the file `log`.
  static Result<Child> Start(const WarmUp& how, const std::string& command, const char* log,
                             int log_flags) {
    std::vector<std::string> words = {abi::kAgentProgram,
                                      "as",
                                      how.user.empty() ? "root" : how.user,
                                      "--",
                                      "/bin/sh",
                                      "-c",
                                      command};
    std::vector<char*> arguments, variables;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    for (const std::string& variable : how.environment) {
      variables.push_back(const_cast<char*>(variable.c_str()));
    }
    variables.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, log, O_WRONLY | O_CREAT | log_flags, 0644);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    posix_spawn_file_actions_addchdir_np(&files,
                                         how.directory.empty() ? "/" : how.directory.c_str());
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    Child child;
    int error = posix_spawn(&child.pid_, abi::kAgentProgram, &files, &attributes, arguments.data(),
                            variables.data());
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    errno = error;
    if (error != 0) return ErrnoError("cannot start \"%s\"", command.c_str());
    child.fd_.Reset(static_cast<int>(syscall(SYS_pidfd_open, child.pid_, 0)));
    if (!child.fd_.valid()) return ErrnoError("pidfd_open");
    return child;
  }

  // Its wait status if it ends within `ms`, else nothing.
  std::optional<int> Wait(int ms) {
    if (status_) return status_;
    pollfd ended = {fd_.get(), POLLIN, 0};
    if (poll(&ended, 1, ms) <= 0) return std::nullopt;
    int status = 0;
    if (waitpid(pid_, &status, 0) == pid_) status_ = status;
    return status_;
  }

  void Kill() {
    kill(-pid_, SIGKILL);
    Wait(-1);
  }

 private:
  pid_t pid_ = -1;
  UniqueFd fd_;
  std::optional<int> status_;
};

std::string EndOf(int status) {
  return WIFSIGNALED(status) ? Format("signal %d", WTERMSIG(status))
                             : Format("status %d", WEXITSTATUS(status));
}

// The last lines of a file, each as one of the agent's.
void LogTail(const char* what, const char* path) {
  UniqueFd file(open(path, O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return;
  off_t size = lseek(file.get(), 0, SEEK_END);
  std::string text(kTail, '\0');
  ssize_t n = pread(file.get(), text.data(), text.size(),
                    std::max<off_t>(0, size - static_cast<off_t>(kTail)));
  text.resize(static_cast<size_t>(std::max<ssize_t>(n, 0)));
  while (!text.empty()) {
    size_t end = std::min(text.find('\n'), text.size());
    if (end > 0) Log(std::string(what) + ": " + text.substr(0, end));
    text.erase(0, end + 1);
  }
}

}  // namespace

Result<WarmUp> WarmUp::Parse(const std::string& text) {
  std::vector<std::string> strings;
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('\0', at);
    if (end == std::string::npos)
      return Errorf("%s does not end with a zero byte", abi::kWarmUpPath);
    strings.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  if (strings.size() < abi::kWarmUpFixedStrings) {
    return Errorf("%s has %zu strings, at least %zu are needed", abi::kWarmUpPath, strings.size(),
                  abi::kWarmUpFixedStrings);
  }
  WarmUp warm_up;
  const std::string& number = strings[0];
  auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), warm_up.seconds);
  if (error != std::errc() || end != number.data() + number.size() || warm_up.seconds < 1 ||
      warm_up.seconds > kMaxSeconds) {
    return Errorf("%s: '%.20s' is not a number of seconds from 1 to %u", abi::kWarmUpPath,
                  number.c_str(), kMaxSeconds);
  }
  warm_up.user = strings[1];
  warm_up.directory = strings[2];
  warm_up.start = strings[3];
  warm_up.ready = strings[4];
  if (warm_up.start.empty()) return Errorf("%s names no command", abi::kWarmUpPath);
  warm_up.environment.assign(strings.begin() + abi::kWarmUpFixedStrings, strings.end());
  return warm_up;
}

Status WarmUp::Run() const {
  mkdir("/var", 0755);
  mkdir("/var/log", 0755);
  CUBE_ASSIGN(Child service, Child::Start(*this, start, abi::kWarmUpLog, O_APPEND));
  const int64_t deadline = NowMs() + int64_t{1000} * seconds;
  auto ended_badly = [&](int wait_ms) -> Status {
    std::optional<int> status = service.Wait(wait_ms);
    // One that ends well has left something behind that runs on.
    if (!status || *status == 0) return OkStatus();
    LogTail("start command", abi::kWarmUpLog);
    return Errorf("the start command \"%s\" ended with %s", start.c_str(), EndOf(*status).c_str());
  };
  if (ready.empty()) return ended_badly(kAliveMs);
  std::string last = "never ended";
  while (true) {
    CUBE_ASSIGN(Child probe, Child::Start(*this, ready, kReadyLog, O_TRUNC));
    int64_t left = std::max<int64_t>(0, deadline - NowMs());
    std::optional<int> status = probe.Wait(static_cast<int>(left));
    if (status && *status == 0) {
      unlink(kReadyLog);
      return OkStatus();
    }
    if (status) last = "ended with " + EndOf(*status);
    CUBE_TRY(ended_badly(0));
    if (!status || NowMs() >= deadline) {
      probe.Kill();
      LogTail("start command", abi::kWarmUpLog);
      LogTail("ready command", kReadyLog);
      return Errorf("the ready command \"%s\" did not succeed within %u s, the last time it %s",
                    ready.c_str(), seconds, last.c_str());
    }
    const timespec pause = {0, kPauseMs * 1'000'000L};
    nanosleep(&pause, nullptr);
  }
}

Status WarmUpIfAsked() {
  if (getenv("cube_warmup") == nullptr) return OkStatus();
  CUBE_ASSIGN(std::string text, ReadSmallFile(abi::kWarmUpPath, WarmUp::kMaxSize));
  CUBE_ASSIGN(WarmUp warm_up, WarmUp::Parse(text));
  return warm_up.Run();
}

}  // namespace cube::agent
