#include "guestkernel/agent/envd/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/monotonic.h"
#include "guestkernel/agent/child_pipe.h"
#include "guestkernel/agent/envd/session.h"
#include "guestkernel/agent/launch.h"

namespace cube::agent::envd {

using connect::Code;
using connect::FromErrno;
using connect::Outcome;
using connect::RpcError;

namespace {

constexpr char kPath[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
// Of output, where memory is short.
constexpr size_t kSmallPiece = 4096;
// After so many reads the others of the loop have a turn.
constexpr int kReadsATurn = 16;
// The terminals' group on Debian, which write(1) and others are of.
constexpr gid_t kTerminalGroup = 5;
// For so long after a terminal was resized nobody but a shell by mistake puts the old size back.
constexpr uint64_t kSettling = 5'000'000'000;

ProcessEnd Describe(int wait_status) {
  ProcessEnd end;
  if (WIFEXITED(wait_status)) {
    end.exited = true;
    end.exit_code = WEXITSTATUS(wait_status);
    end.status = Format("exit status %d", end.exit_code);
    return end;
  }
  const int number = WTERMSIG(wait_status);
  const char* name = sigdescr_np(number);
  std::string text = name != nullptr ? name : Format("signal %d", number);
  text[0] = static_cast<char>(tolower(static_cast<unsigned char>(text[0])));
  end.exit_code = -1;
  end.status = "signal: " + text;
  if (WCOREDUMP(wait_status)) end.status += " (core dumped)";
  return end;
}

bool HasZero(const std::string& text) { return text.find('\0') != std::string::npos; }

// What execve(2) cannot be given.
Outcome<bool> Check(const ProcessRequest& request) {
  if (request.command.empty()) return RpcError{Code::kInvalidArgument, "no command is named"};
  bool zero = HasZero(request.command);
  for (const std::string& argument : request.arguments) zero |= HasZero(argument);
  for (const auto& [name, value] : request.environment) {
    zero |= HasZero(name) || HasZero(value);
    if (name.empty() || name.find('=') != std::string::npos) {
      return RpcError{Code::kInvalidArgument, "'" + name + "' cannot be the name of a variable"};
    }
  }
  if (zero) return RpcError{Code::kInvalidArgument, "a zero byte in what is to be run"};
  return true;
}

winsize WindowSize(TerminalSize size) {
  winsize window = {};
  window.ws_col = size.columns;
  window.ws_row = size.rows;
  return window;
}

RpcError NoProcess(const std::string& doing) {
  return {Code::kFailedPrecondition, doing + ": the process has ended"};
}

}  // namespace

Outcome<std::shared_ptr<Process>> Process::Start(Context* context, ProcessRequest request,
                                                 const User& user, int nothing,
                                                 std::function<void()> on_end) {
  Outcome<bool> possible = Check(request);
  if (!possible.ok()) return possible.error();
  std::shared_ptr<Process> process(new Process(context, std::move(request), std::move(on_end)));
  Outcome<bool> spawned = process->Spawn(user, nothing);
  if (!spawned.ok()) return spawned.error();
  return process;
}

Process::~Process() {
  context_->loop->Cancel(deadline_);
  if (pid_ > 0 && !exited_) context_->reaper->Forget(pid_);
  for (Source& source : sources_) CloseSource(&source);
  if (input_watched_ && stdin_.valid()) context_->loop->Remove(stdin_.get());
}

Outcome<std::string> Process::Directory(const User& user) const {
  const std::string& workdir = context_->settings.default_workdir;
  std::string path = request_.directory.value_or("");
  if (path.empty()) path = workdir.empty() ? user.home : workdir;
  Outcome<std::string> resolved = Context::Resolve(path, user, user.home);
  if (!resolved.ok()) return resolved;
  struct stat info;
  if (stat(resolved->c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return resolved;
    return RpcError{Code::kInvalidArgument, "cwd '" + *resolved + "' is not a directory"};
  }
  if (!request_.directory || request_.directory->empty()) return std::string("/");
  return RpcError{Code::kInvalidArgument, "cwd '" + *resolved + "' does not exist"};
}

std::vector<std::string> Process::Environment(const User& user) const {
  const char* path = getenv("PATH");
  Variables variables = {{"PATH", path != nullptr ? path : kPath},
                         {"HOME", user.home},
                         {"USER", user.name},
                         {"LOGNAME", user.name}};
  // As login(1) does; a Bash that does not find it asks the machine's list of users, by 22 calls.
  if (!user.shell.empty()) variables.emplace_back("SHELL", user.shell);
  for (const auto& [name, value] : context_->settings.environment) {
    SetVariable(&variables, name, value);
  }
  for (const auto& [name, value] : request_.environment) SetVariable(&variables, name, value);
  std::vector<std::string> strings;
  strings.reserve(variables.size());
  for (const auto& [name, value] : variables) strings.push_back(name + "=" + value);
  return strings;
}

// The slave is returned, the master is the first source.
Outcome<UniqueFd> Process::OpenTerminal(uid_t owner) {
  UniqueFd master(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  if (!master.valid()) return FromErrno(errno, "cannot make a terminal");
  const int unlocked = 0;
  ioctl(master.get(), TIOCSPTLCK, &unlocked);
  UniqueFd slave(ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!slave.valid()) return FromErrno(errno, "cannot open the terminal");
  const winsize window = WindowSize(*request_.terminal);
  ioctl(master.get(), TIOCSWINSZ, &window);
  // So that its user may open it by its name.
  if (fchown(slave.get(), owner, kTerminalGroup) < 0 && owner != geteuid()) {
    return FromErrno(errno, "cannot give the terminal to its user");
  }
  Outcome<bool> watched = Watch(0, std::move(master), Stream::kTerminal);
  if (!watched.ok()) return watched.error();
  return slave;
}

Outcome<bool> Process::Watch(size_t source, UniqueFd fd, Stream stream) {
  Status added = context_->loop->Add(fd.get(), EPOLLIN | EPOLLET, [this, source](uint32_t events) {
    OnSourceEvents(source, events);
  });
  if (!added.ok()) return RpcError{Code::kResourceExhausted, added.error().message()};
  sources_[source].fd = std::move(fd);
  sources_[source].stream = stream;
  return true;
}

Outcome<bool> Process::Spawn(const User& user, int nothing) {
  Outcome<std::string> directory = Directory(user);
  if (!directory.ok()) return directory.error();
  std::vector<std::string> arguments = {request_.command};
  arguments.insert(arguments.end(), request_.arguments.begin(), request_.arguments.end());
  std::vector<std::string> variables = Environment(user);
  Launch launch(arguments, variables, *directory);
  launch.credentials = &user.credentials;
  UniqueFd theirs[3];
  if (request_.terminal) {
    Outcome<UniqueFd> slave = OpenTerminal(user.credentials.uid);
    if (!slave.ok()) return slave.error();
    theirs[0] = std::move(slave).value();
    for (int& fd : launch.fds) fd = theirs[0].get();
    launch.terminal = true;
  } else {
    UniqueFd ours[2];
    if ((request_.has_stdin && !MakePipe(&stdin_, &theirs[0], true)) ||
        !MakePipe(&ours[0], &theirs[1], false) || !MakePipe(&ours[1], &theirs[2], false)) {
      return FromErrno(errno, "cannot make pipes");
    }
    for (size_t i = 0; i < 3; ++i) launch.fds[i] = theirs[i].get();
    if (!request_.has_stdin) launch.fds[0] = nothing;
    Outcome<bool> watched = Watch(0, std::move(ours[0]), Stream::kStdout);
    if (watched.ok()) watched = Watch(1, std::move(ours[1]), Stream::kStderr);
    if (!watched.ok()) return watched;
  }
  pid_ = launch.Spawn();
  if (pid_ < 0) return FromErrno(errno, "cannot start a process");
  if (launch.failed() != nullptr) {
    pid_ = -1;  // the reaper's, who knows nobody to tell
    RpcError error = FromErrno(
        launch.error(), std::string("cannot ") + launch.failed() + " '" + request_.command + "'");
    // That something is missing is not that the process asked for is.
    if (error.code == Code::kNotFound) error.code = Code::kInvalidArgument;
    return error;
  }
  context_->reaper->Watch(pid_, [this](int wait_status) { OnExit(wait_status); });
  return true;
}

void Process::Leave(Listener* listener) {
  std::erase(listeners_, listener);
  // It may have been the one that the others waited for.
  OnRoom();
}

void Process::OnRoom() {
  if (std::exchange(pump_deferred_, true)) return;
  context_->loop->Defer([weak = weak_from_this()] {
    std::shared_ptr<Process> self = weak.lock();
    if (self == nullptr) return;
    self->pump_deferred_ = false;
    self->Pump();
  });
}

bool Process::HasRoom() const {
  return std::all_of(listeners_.begin(), listeners_.end(),
                     [](const Listener* each) { return each->HasRoom(); });
}

void Process::OnSourceEvents(size_t index, uint32_t events) {
  Source& source = sources_[index];
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) source.ready = true;
  if (events & (EPOLLHUP | EPOLLERR)) source.hung_up = true;
  if (events & EPOLLOUT) PumpInput();
  Pump();
}

void Process::Pump() {
  // Whoever is told of the end may let go of it.
  std::shared_ptr<Process> self = shared_from_this();
  for (Source& source : sources_) PumpSource(&source);
  EndIfDone();
}

void Process::PumpSource(Source* source) {
  int reads = 0;
  while (source->fd.valid() && source->ready && HasRoom()) {
    if (++reads > kReadsATurn) return OnRoom();
    if (!ReadOnce(source)) return;
  }
}

bool Process::ReadOnce(Source* source) {
  std::span<char> scratch = context_->scratch;
  if (context_->memory->tight()) scratch = scratch.first(kSmallPiece);
  const ssize_t n = read(source->fd.get(), scratch.data(), scratch.size());
  if (n < 0 && errno == EINTR) return true;
  if (n < 0 && errno == EAGAIN) {
    source->ready = false;
    return false;
  }
  if (n <= 0) {  // a terminal says EIO when no process has it open
    CloseSource(source);
    return false;
  }
  const size_t size = static_cast<size_t>(n);
  if (size_before_) KeepSize();
  for (Listener* listener : listeners_) listener->OnOutput(source->stream, {scratch.data(), size});
  // A pipe gives all it has if there is room: no second call to find it empty, unless to find that
  // it has ended. A terminal gives less.
  if (source->stream != Stream::kTerminal && size < scratch.size() && !source->hung_up) {
    source->ready = false;
    return false;
  }
  return true;
}

void Process::CloseSource(Source* source) {
  if (!source->fd.valid()) return;
  context_->loop->Remove(source->fd.get());
  source->fd.Reset();
}

void Process::OnExit(int wait_status) {
  std::shared_ptr<Process> self = shared_from_this();
  exited_ = true;
  coming_end_ = Describe(wait_status);
  // That they have ended is most likely known by now, or will be at the first look.
  for (Source& source : sources_) source.ready = true;
  Pump();
}

void Process::EndIfDone() {
  if (end_ || !coming_end_) return;
  const bool open = sources_[0].fd.valid() || sources_[1].fd.valid();
  // Others may have the pipes still open. Those of a process that was killed are not waited for:
  // what was in the pipes has been read, if all have taken it.
  const bool read_all = !(sources_[0].fd.valid() && sources_[0].ready) &&
                        !(sources_[1].fd.valid() && sources_[1].ready);
  if (open && ((coming_end_->exited && !overdue_) || !read_all)) return;
  context_->loop->Cancel(std::exchange(deadline_, EventLoop::kNoTimer));
  for (Source& source : sources_) CloseSource(&source);
  if (input_watched_ && stdin_.valid()) context_->loop->Remove(stdin_.get());
  stdin_.Reset();
  FailInputs(NoProcess("cannot write to its stdin"));
  end_ = coming_end_;
  for (Listener* listener : std::exchange(listeners_, {})) listener->OnEnd(*end_);
  on_end_();
}

int Process::InputFd() const { return request_.terminal ? sources_[0].fd.get() : stdin_.get(); }

void Process::Write(bool to_terminal, std::string bytes, Done done) {
  if (end_) return done(NoProcess("cannot write to it"));
  if (to_terminal != request_.terminal.has_value()) {
    return done(RpcError{Code::kFailedPrecondition,
                         to_terminal ? "the process has no terminal"
                                     : "the process has a terminal, no stdin of its own"});
  }
  if (InputFd() < 0 || close_stdin_) {
    return done(RpcError{Code::kFailedPrecondition, "stdin of the process is not open"});
  }
  MemoryBudget::Lease memory(context_->memory);
  if (!memory.Keep(bytes.size())) {
    return done(RpcError{Code::kResourceExhausted, context_->memory->Refusal()});
  }
  inputs_.push_back({std::move(bytes), 0, std::move(done), std::move(memory)});
  if (inputs_.size() == 1) PumpInput();
}

void Process::PumpInput() {
  while (!inputs_.empty() && InputFd() >= 0) {
    Input& input = inputs_.front();
    const size_t left = input.bytes.size() - input.written;
    ssize_t n = left == 0 ? 0 : write(InputFd(), input.bytes.data() + input.written, left);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) n = 0;
    if (n < 0) {
      FailInputs(FromErrno(errno, "cannot write to the process"));
      return;
    }
    input.written += static_cast<size_t>(n);
    if (input.written < input.bytes.size()) {
      if (input_watched_) return;
      input_watched_ = true;
      // Only once it has been full: most never are, and a watch costs a call.
      Status watched = request_.terminal
                           ? context_->loop->Modify(InputFd(), EPOLLIN | EPOLLOUT | EPOLLET)
                           : context_->loop->Add(InputFd(), EPOLLOUT | EPOLLET,
                                                 [this](uint32_t) { PumpInput(); });
      if (!watched.ok()) FailInputs({Code::kResourceExhausted, watched.error().message()});
      return;
    }
    Done done = std::move(input.done);
    inputs_.pop_front();
    done(true);
  }
  if (inputs_.empty() && close_stdin_) {
    if (input_watched_ && stdin_.valid()) context_->loop->Remove(stdin_.get());
    stdin_.Reset();
  }
}

void Process::FailInputs(const RpcError& error) {
  for (Input& input : std::exchange(inputs_, {})) input.done(error);
}

Outcome<bool> Process::CloseStdin() {
  if (request_.terminal) {
    return RpcError{Code::kFailedPrecondition, "the stdin of a terminal cannot be closed"};
  }
  close_stdin_ = true;
  if (!end_) PumpInput();
  return true;
}

Outcome<bool> Process::Resize(TerminalSize size) {
  if (!request_.terminal) {
    return RpcError{Code::kFailedPrecondition, "the process has no terminal"};
  }
  const winsize window = WindowSize(size);
  if (!sources_[0].fd.valid()) return NoProcess("cannot resize its terminal");
  if (ioctl(sources_[0].fd.get(), TIOCSWINSZ, &window) < 0) {
    return FromErrno(errno, "cannot resize the terminal");
  }
  size_before_ = std::exchange(request_.terminal, size);
  resized_ = MonotonicNow();
  return true;
}

void Process::KeepSize() {
  const winsize before = WindowSize(*size_before_), wanted = WindowSize(*request_.terminal);
  if (MonotonicNow() - resized_ > kSettling) {
    size_before_.reset();
    return;
  }
  winsize now = {};
  if (ioctl(sources_[0].fd.get(), TIOCGWINSZ, &now) < 0) return;
  if (now.ws_row != before.ws_row || now.ws_col != before.ws_col) return;
  ioctl(sources_[0].fd.get(), TIOCSWINSZ, &wanted);
}

Outcome<bool> Process::Signal(int number) {
  // Once it has been reaped its number may be another's.
  if (exited_) return RpcError{Code::kNotFound, "the process has ended"};
  if (kill(pid_, number) < 0) return FromErrno(errno, "cannot send a signal");
  return true;
}

void Process::KillAfter(uint64_t nanoseconds) {
  deadline_ = context_->loop->After(nanoseconds, [this] {
    overdue_ = true;
    KillSession(pid_, exited_);
    Pump();
  });
}

}  // namespace cube::agent::envd
