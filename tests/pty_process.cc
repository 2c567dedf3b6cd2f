#include "tests/pty_process.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace cube::testing {
namespace {

void Must(bool ok, const char* what) {
  if (ok) return;
  perror(what);
  abort();
}

}  // namespace

PtyProcess::PtyProcess(const std::vector<std::string>& arguments, uint16_t rows,
                       uint16_t columns) {
  winsize size = {};
  size.ws_row = rows;
  size.ws_col = columns;
  Must(openpty(&keyboard_, &terminal_, nullptr, nullptr, &size) == 0, "openpty");
  fcntl(keyboard_, F_SETFD, FD_CLOEXEC);
  fcntl(keyboard_, F_SETFL, O_NONBLOCK);
  fcntl(terminal_, F_SETFD, FD_CLOEXEC);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_ = fork();
  Must(pid_ >= 0, "fork");
  if (pid_ == 0) {
    setsid();
    ioctl(terminal_, TIOCSCTTY, 0);
    for (int fd = 0; fd < 3; ++fd) dup2(terminal_, fd);
    execv(argv[0], argv.data());
    _exit(127);
  }
  process_ = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  Must(process_ >= 0, "pidfd_open");
}

PtyProcess::~PtyProcess() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  for (int fd : {process_, keyboard_, terminal_}) close(fd);
}

void PtyProcess::Type(const std::string& keys) {
  // A few keys always fit a terminal's queue.
  Must(write(keyboard_, keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()), "write");
}

bool PtyProcess::Read() {
  pollfd fds[2] = {{keyboard_, POLLIN, 0}, {process_, POLLIN, 0}};
  while (poll(fds, 2, -1) < 0) Must(errno == EINTR, "poll");
  char buffer[4096];
  // First the screen: at the process's end its last words are still to be read.
  ssize_t n = read(keyboard_, buffer, sizeof buffer);
  if (n > 0) screen_.append(buffer, static_cast<size_t>(n));
  return n > 0 || fds[1].revents == 0;
}

bool PtyProcess::See(const std::string& text) {
  size_t at;
  while ((at = screen_.find(text, seen_)) == std::string::npos) {
    if (!Read()) return false;
  }
  seen_ = at + text.size();
  return true;
}

int PtyProcess::Finish() {
  while (Read()) {
  }
  int status = 0;
  Must(waitpid(pid_, &status, 0) == pid_, "waitpid");
  pid_ = -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

termios PtyProcess::Settings() const {
  termios settings = {};
  Must(tcgetattr(terminal_, &settings) == 0, "tcgetattr");
  return settings;
}

}  // namespace cube::testing
