#include "templates/child_run.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/unique_fd.h"

namespace cube::templates {
namespace {

constexpr size_t kPiece = 64 * 1024;

struct Pipe {
  UniqueFd reader, writer;
  static Result<Pipe> Create() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return ErrnoError("pipe");
    return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
  }
};

[[noreturn]] void Become(const std::vector<std::string>& arguments, int input, int output,
                         int errors, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // it died before that
  dup2(input, 0);
  dup2(output, 1);
  dup2(errors, 2);
  std::vector<char*> pointers;
  for (const std::string& word : arguments) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  signal(SIGPIPE, SIG_DFL);
  execvp(pointers[0], pointers.data());
  const std::string line = ErrnoError("cannot run %s", pointers[0]).message() + "\n";
  [[maybe_unused]] ssize_t n = write(2, line.data(), line.size());
  _exit(127);
}

// Takes what there is; false at its end.
bool Take(int fd, const std::function<void(std::string_view)>& taker) {
  char piece[kPiece];
  ssize_t n = read(fd, piece, sizeof piece);
  if (n > 0 && taker) taker({piece, static_cast<size_t>(n)});
  return n > 0 || (n < 0 && errno == EINTR);
}

// What goes to the program's stdin.
class Feeder {
 public:
  Feeder(const std::function<Result<size_t>(std::span<uint8_t>)>& source, UniqueFd to)
      : source_(source), to_(std::move(to)), buffer_(kPiece) {
    fcntl(to_.get(), F_SETFL, O_NONBLOCK);
  }
  int fd() const { return to_.get(); }
  // Moves what can be moved, and closes the pipe at the end, or when nobody reads.
  Status Feed() {
    if (at_ == end_) {
      CUBE_ASSIGN(end_, source_(buffer_));
      at_ = 0;
      if (end_ == 0) {
        to_.Reset();
        return OkStatus();
      }
    }
    ssize_t n = write(to_.get(), buffer_.data() + at_, end_ - at_);
    if (n > 0) at_ += static_cast<size_t>(n);
    if (n < 0 && errno != EAGAIN && errno != EINTR) to_.Reset();
    return OkStatus();
  }

 private:
  const std::function<Result<size_t>(std::span<uint8_t>)>& source_;
  UniqueFd to_;
  std::vector<uint8_t> buffer_;
  size_t at_ = 0, end_ = 0;
};

}  // namespace

Result<int> ChildRun::Run() const {
  CUBE_ASSIGN(Pipe out, Pipe::Create());
  CUBE_ASSIGN(Pipe err, Pipe::Create());
  CUBE_ASSIGN(Pipe in, Pipe::Create());
  const pid_t self = getpid();
  pid_t pid = fork();
  if (pid < 0) return ErrnoError("fork");
  if (pid == 0) {
    Become(arguments, in.reader.get(), out.writer.get(),
           errors ? err.writer.get() : out.writer.get(), self);
  }
  out.writer.Reset();
  err.writer.Reset();
  in.reader.Reset();
  Feeder feeder(input, input ? std::move(in.writer) : UniqueFd());
  in.writer.Reset();
  Status fed;
  while (out.reader.valid() || err.reader.valid()) {
    pollfd waited[] = {
        {out.reader.get(), POLLIN, 0}, {err.reader.get(), POLLIN, 0}, {feeder.fd(), POLLOUT, 0}};
    if (poll(waited, 3, -1) < 0 && errno != EINTR) break;
    if (waited[0].revents != 0 && !Take(out.reader.get(), output)) out.reader.Reset();
    if (waited[1].revents != 0 && !Take(err.reader.get(), errors)) err.reader.Reset();
    if (waited[2].revents == 0 || !fed.ok()) continue;
    fed = feeder.Feed();
    if (!fed.ok()) kill(pid, SIGKILL);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!fed.ok()) return fed.error();
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void LastLines::Add(std::string_view text) {
  kept_ += text;
  if (kept_.size() > 2 * kBytes) kept_.erase(0, kept_.size() - kBytes);
}

std::string LastLines::text() const {
  std::string text = kept_.size() > kBytes ? kept_.substr(kept_.size() - kBytes) : kept_;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  size_t start = text.size();
  for (size_t lines = 0; lines < kLines && start != std::string::npos && start > 0; ++lines) {
    start = text.rfind('\n', start - 1);
  }
  return start == std::string::npos || start == 0 ? text : text.substr(start + 1);
}

}  // namespace cube::templates
