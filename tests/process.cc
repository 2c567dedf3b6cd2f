#include "tests/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

extern char** environ;

namespace cube::testing {
namespace {

void Must(bool ok, const char* what) {
  if (ok) return;
  perror(what);
  abort();
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments) {
  signal(SIGPIPE, SIG_IGN);
  int in[2], out[2], err[2];
  Must(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0, "pipe2");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawn_file_actions_adddup2(&actions, err[1], 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  int error = posix_spawn(&pid_, argv[0], &actions, &attributes, argv.data(), environ);
  Must(error == 0, argv[0]);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  close(in[0]);
  close(out[1]);
  close(err[1]);
  in_ = in[1];
  out_ = out[0];
  err_ = err[0];
}

Process::~Process() {
  for (int fd : {in_, out_, err_}) {
    if (fd >= 0) close(fd);
  }
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    Reap();
  }
}

int Process::Reap() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

Finished Process::Finish(const std::string& input) {
  Finished finished;
  finished.out = std::exchange(unread_, "");
  size_t fed = 0;
  fcntl(in_, F_SETFL, O_NONBLOCK);
  if (input.empty()) {
    close(in_);
    in_ = -1;
  }
  while (out_ >= 0 || err_ >= 0) {
    pollfd fds[3] = {{out_, POLLIN, 0}, {err_, POLLIN, 0}, {in_, POLLOUT, 0}};
    if (poll(fds, 3, -1) < 0) continue;
    char buffer[65536];
    for (int i = 0; i < 2; ++i) {
      if (fds[i].revents == 0) continue;
      ssize_t n = read(fds[i].fd, buffer, sizeof buffer);
      if (n > 0) {
        (i == 0 ? finished.out : finished.err).append(buffer, static_cast<size_t>(n));
      } else if (n == 0) {
        int& fd = i == 0 ? out_ : err_;
        close(fd);
        fd = -1;
      }
    }
    if (fds[2].revents != 0) {
      ssize_t n = write(in_, input.data() + fed, input.size() - fed);
      if (n > 0) fed += static_cast<size_t>(n);
      if (fed == input.size() || (n < 0 && errno != EAGAIN)) {
        close(in_);
        in_ = -1;
      }
    }
  }
  finished.status = Reap();
  return finished;
}

void Process::Send(const std::string& input) {
  Must(write(in_, input.data(), input.size()) == static_cast<ssize_t>(input.size()), "write");
}

Finished Process::ReadThenLeave(size_t bytes) {
  std::string got;
  while (got.size() < bytes) {
    char buffer[4096];
    ssize_t n = read(out_, buffer, std::min(sizeof buffer, bytes - got.size()));
    if (n <= 0) break;
    got.append(buffer, static_cast<size_t>(n));
  }
  close(out_);
  out_ = -1;
  Finished finished = Finish();
  finished.out = got;
  return finished;
}

std::string Process::ReadLine() {
  size_t end;
  while ((end = unread_.find('\n')) == std::string::npos) {
    char buffer[4096];
    ssize_t n = read(out_, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return std::exchange(unread_, "") + kEnded;
    unread_.append(buffer, static_cast<size_t>(n));
  }
  std::string line = unread_.substr(0, end);
  unread_.erase(0, end + 1);
  return line;
}

std::string Process::WaitForOutput() {
  if (!unread_.empty()) return std::exchange(unread_, "");
  pollfd fds[2] = {{out_, POLLIN, 0}, {err_, POLLIN, 0}};
  Must(poll(fds, 2, -1) > 0, "poll");
  if (fds[0].revents == 0) return "";
  char buffer[4096];
  ssize_t n = read(out_, buffer, sizeof buffer);
  return std::string(buffer, n > 0 ? static_cast<size_t>(n) : 0);
}

void Process::WaitForError(const std::string& text) {
  std::string got;
  char buffer[4096];
  for (ssize_t n; got.find(text) == std::string::npos && (n = read(err_, buffer, sizeof buffer)) > 0;) {
    got.append(buffer, static_cast<size_t>(n));
  }
}

Finished RunProcess(const std::vector<std::string>& arguments, const std::string& input) {
  return Process(arguments).Finish(input);
}

}  // namespace cube::testing
