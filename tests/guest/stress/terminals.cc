// Job control on pseudo-terminals: who gets which signal, who stops, who is hung up.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>

#include "tests/guest/stress/stress.h"

namespace cube::testing {
namespace {

struct Terminal {
  int master;
  char name[64];
};

Terminal OpenTerminal() {
  Terminal terminal;
  terminal.master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  Must(terminal.master >= 0, "posix_openpt");
  Must(grantpt(terminal.master) == 0 && unlockpt(terminal.master) == 0, "unlockpt");
  Must(ptsname_r(terminal.master, terminal.name, sizeof terminal.name) == 0, "ptsname_r");
  return terminal;
}

void Type(const Terminal& terminal, const char* keys) {
  Must(write(terminal.master, keys, strlen(keys)) == static_cast<ssize_t>(strlen(keys)), "type");
}

// Reads from the master until `text` has been shown.
void Await(const Terminal& terminal, const char* text) {
  char shown[4096];
  size_t size = 0;
  while (size < sizeof shown - 1) {
    ssize_t got = read(terminal.master, shown + size, 1);
    if (got < 0 && errno == EINTR) continue;
    Must(got == 1, text);
    shown[++size] = 0;
    if (strstr(shown, text) != nullptr) return;
  }
  Fail("the terminal shows no %s", text);
}

// The leader of a session of the terminal: its descriptors are 0, 1, 2.
template <typename Body>
pid_t StartSession(const Terminal& terminal, const Body& body) {
  return Fork([&] {
    Must(setsid() == getpid(), "setsid");
    int fd = open(terminal.name, O_RDWR);
    Must(fd >= 0, terminal.name);
    Must(ioctl(fd, TIOCSCTTY, 0) == 0, "TIOCSCTTY");
    close(terminal.master);
    // A failure is told on the tester's own output.
    int report = dup(1);
    for (int i = 0; i < 3; ++i) Must(dup2(fd, i) == i, "dup2");
    body(fd, report);
  });
}

void Say(const char* text) {
  Must(write(1, text, strlen(text)) == static_cast<ssize_t>(strlen(text)), "say");
}

// A job in a group of its own, as a shell starts one.
template <typename Body>
pid_t StartJob(int tty, bool foreground, const Body& body) {
  int go[2];
  Must(pipe(go) == 0, "pipe");
  pid_t job = Fork([&] {
    close(go[1]);
    char byte;
    Must(read(go[0], &byte, 1) == 1, "read");
    for (int signal : {SIGINT, SIGTSTP, SIGTTIN, SIGTTOU}) ::signal(signal, SIG_DFL);
    body();
  });
  Must(setpgid(job, job) == 0, "setpgid");
  if (foreground) Must(tcsetpgrp(tty, job) == 0, "tcsetpgrp");
  Must(write(go[1], "", 1) == 1, "write");
  close(go[0]);
  close(go[1]);
  return job;
}

int WaitJob(pid_t job, const char* what, bool want_stop, int want_signal) {
  int status = 0;
  Must(waitpid(job, &status, WUNTRACED) == job, "waitpid");
  bool stopped = WIFSTOPPED(status);
  int signal = stopped ? WSTOPSIG(status) : WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  if (stopped != want_stop || signal != want_signal) {
    Fail("%s: wait status %#x", what, static_cast<unsigned>(status));
  }
  return signal;
}

void Shell(int tty) {
  for (int signal : {SIGINT, SIGTSTP, SIGTTIN, SIGTTOU}) ::signal(signal, SIG_IGN);
  // The foreground job is interrupted, that in the background is not.
  pid_t background = StartJob(tty, false, [] {
    while (true) pause();
  });
  pid_t job = StartJob(tty, true, [] {
    Say("<one>");
    while (true) pause();
  });
  WaitJob(job, "interrupt", false, SIGINT);
  Must(tcsetpgrp(tty, getpgrp()) == 0, "tcsetpgrp");
  // Stopped, continued in the foreground, stopped again, ended.
  job = StartJob(tty, true, [] {
    signal(SIGCONT, [](int) { Say("<two>"); });
    Say("<two>");
    while (true) pause();
  });
  for (int i = 0; i < 3; ++i) {
    WaitJob(job, "stop", true, SIGTSTP);
    Must(tcsetpgrp(tty, getpgrp()) == 0, "tcsetpgrp");
    Must(tcsetpgrp(tty, job) == 0, "tcsetpgrp");
    Must(kill(-job, SIGCONT) == 0, "SIGCONT");
  }
  WaitJob(job, "quit", false, SIGQUIT);
  Must(tcsetpgrp(tty, getpgrp()) == 0, "tcsetpgrp");
  // Reading in the background stops, and goes on in the foreground.
  job = StartJob(tty, false, [] {
    char line[64];
    ssize_t got = read(0, line, sizeof line);
    _exit(got == 6 && memcmp(line, "abXde\n", 6) == 0 ? 0 : 1);
  });
  WaitJob(job, "background read", true, SIGTTIN);
  Must(tcsetpgrp(tty, job) == 0, "tcsetpgrp");
  Must(kill(-job, SIGCONT) == 0, "SIGCONT");
  Say("<three>");
  WaitJob(job, "foreground read", false, 0);
  Must(tcsetpgrp(tty, getpgrp()) == 0, "tcsetpgrp");
  // Writing in the background stops where the terminal says so.
  termios modes;
  Must(tcgetattr(tty, &modes) == 0, "tcgetattr");
  modes.c_lflag |= TOSTOP;
  Must(tcsetattr(tty, TCSANOW, &modes) == 0, "tcsetattr");
  job = StartJob(tty, false, [] { Say("<four>"); });
  WaitJob(job, "background write", true, SIGTTOU);
  Must(tcsetpgrp(tty, job) == 0, "tcsetpgrp");
  Must(kill(-job, SIGCONT) == 0, "SIGCONT");
  WaitJob(job, "foreground write", false, 0);
  Must(tcsetpgrp(tty, getpgrp()) == 0, "tcsetpgrp");
  // A new size of the window is told to the foreground.
  static volatile sig_atomic_t resized;
  signal(SIGWINCH, [](int) { resized = 1; });
  sigset_t mask, before;
  sigemptyset(&mask);
  sigaddset(&mask, SIGWINCH);
  Must(sigprocmask(SIG_BLOCK, &mask, &before) == 0, "sigprocmask");
  Say("<five>");
  while (resized == 0) sigsuspend(&before);
  winsize size;
  Must(ioctl(tty, TIOCGWINSZ, &size) == 0, "TIOCGWINSZ");
  if (size.ws_row != 33 || size.ws_col != 77) Fail("a window of %d rows", size.ws_row);
  if (waitpid(background, nullptr, WNOHANG | WUNTRACED) != 0)
    Fail("the job in the background ended");
  Must(kill(background, SIGKILL) == 0, "kill");
  StatusOf(background);
  // End of file, then hung up.
  char byte;
  Say("<six>");
  if (read(0, &byte, 1) != 0) Fail("no end of file");
  signal(SIGHUP, [](int) { _exit(7); });
  Say("<seven>");
  while (true) pause();
}

void Jobs(Run& run) {
  for (uint64_t round = 0; round < run.rounds; ++round) {
    Terminal terminal = OpenTerminal();
    pid_t session = StartSession(terminal, [](int tty, int) { Shell(tty); });
    Await(terminal, "<one>");
    Type(terminal, "\003");
    for (int i = 0; i < 3; ++i) {
      Await(terminal, "<two>");
      Type(terminal, "\032");
    }
    Await(terminal, "<two>");
    Type(terminal, "\034");
    Await(terminal, "<three>");
    Type(terminal, "junk\025abc\177Xde\n");  // erased by ^U and by the rubout
    Await(terminal, "<four>");
    Await(terminal, "<five>");
    winsize size = {33, 77, 0, 0};
    Must(ioctl(terminal.master, TIOCSWINSZ, &size) == 0, "TIOCSWINSZ");
    Await(terminal, "<six>");
    Type(terminal, "\004");
    Await(terminal, "<seven>");
    close(terminal.master);
    int status = StatusOf(session);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 7) {
      Fail("the session ended with wait status %#x", static_cast<unsigned>(status));
    }
    run.Add(round);
  }
}

// Much in both directions through a raw terminal, none of it lost or changed.
void Raw(Run& run) {
  for (uint64_t round = 0; round < run.rounds; ++round) {
    constexpr size_t kTotal = 60000;
    Terminal terminal = OpenTerminal();
    int tty = open(terminal.name, O_RDWR | O_NOCTTY);
    Must(tty >= 0, terminal.name);
    termios modes;
    Must(tcgetattr(tty, &modes) == 0, "tcgetattr");
    cfmakeraw(&modes);
    Must(tcsetattr(tty, TCSANOW, &modes) == 0, "tcsetattr");
    uint64_t seed = run.random.Next();
    pid_t echo = Fork([&] {
      uint8_t data[700];
      for (size_t done = 0; done < kTotal;) {
        ssize_t got = read(tty, data, sizeof data);
        Must(got > 0, "read");
        for (ssize_t at = 0; at < got;) {
          ssize_t put = write(tty, data + at, static_cast<size_t>(got - at));
          Must(put > 0, "write");
          at += put;
        }
        done += static_cast<size_t>(got);
      }
    });
    pid_t typist = Fork([&] {
      Random random(seed);
      for (size_t done = 0; done < kTotal;) {
        uint8_t data[500];
        size_t size = std::min<size_t>(kTotal - done, 1 + random.Below(sizeof data));
        for (size_t i = 0; i < size; ++i) data[i] = static_cast<uint8_t>(done + i + seed);
        for (size_t at = 0; at < size;) {
          ssize_t put = write(terminal.master, data + at, size - at);
          Must(put > 0, "write");
          at += static_cast<size_t>(put);
        }
        done += size;
      }
    });
    for (size_t done = 0; done < kTotal;) {
      uint8_t data[900];
      ssize_t got = read(terminal.master, data, sizeof data);
      Must(got > 0, "read");
      for (ssize_t i = 0; i < got; ++i, ++done) {
        if (data[i] != static_cast<uint8_t>(done + seed)) Fail("byte %zu differs", done);
      }
    }
    Join(typist);
    Join(echo);
    close(tty);
    close(terminal.master);
    run.Add(kTotal);
  }
}

constexpr Subtest kSubtests[] = {
    {"jobs", Jobs, 10},
    {"raw_terminal", Raw, 5},
};

}  // namespace

std::span<const Subtest> TerminalSubtests() { return kSubtests; }

}  // namespace cube::testing
