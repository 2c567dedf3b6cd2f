#include "guestkernel/agent/interpreter/worker.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace cube::agent::interpreter {
namespace {

// What a pipe holds: so much output at most may be older than an event that has just come.
constexpr size_t kPipeSize = 64 * 1024;
// After so much in one go others have their turn.
constexpr size_t kTurnBytes = 1 << 20;

}  // namespace

Result<WorkerPipes> WorkerPipes::Create() {
  WorkerPipes pipes;
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) return ErrnoError("socketpair");
  pipes.control.Reset(fds[0]);
  pipes.its_control.Reset(fds[1]);
  if (pipe2(fds, O_CLOEXEC) < 0) return ErrnoError("pipe2");
  pipes.output.Reset(fds[0]);
  pipes.its_output.Reset(fds[1]);
  if (pipe2(fds, O_CLOEXEC) < 0) return ErrnoError("pipe2");
  pipes.error.Reset(fds[0]);
  pipes.its_error.Reset(fds[1]);
  for (const UniqueFd* fd : {&pipes.control, &pipes.output, &pipes.error}) {
    if (fcntl(fd->get(), F_SETFL, O_NONBLOCK) < 0) return ErrnoError("fcntl");
  }
  return pipes;
}

Worker::Worker(EventLoop* loop, std::span<char> scratch, Client* client, WorkerPipes pipes,
               int32_t pid)
    : loop_(loop), scratch_(scratch), client_(client), pid_(pid) {
  control_.fd = std::move(pipes.control);
  streams_[kOutput].fd = std::move(pipes.output);
  streams_[kError].fd = std::move(pipes.error);
}

Worker::~Worker() {
  if (pid_ > 1) kill(-pid_, SIGKILL);
  for (Source* source : {&control_, &streams_[kOutput], &streams_[kError]}) {
    if (source->fd.valid()) loop_->Remove(source->fd.get());
  }
}

Status Worker::Open() {
  CUBE_TRY(Watch(&control_, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET));
  CUBE_TRY(Watch(&streams_[kOutput], EPOLLIN | EPOLLET));
  return Watch(&streams_[kError], EPOLLIN | EPOLLET);
}

Status Worker::Watch(Source* source, uint32_t events) {
  return loop_->Add(source->fd.get(), events, [this, source](uint32_t ready) {
    if (ready & ~EPOLLOUT) source->readable = true;
    if (ready & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) source->ending = true;
    if (ready & EPOLLOUT) Flush();
    Pump();
  });
}

void Worker::Send(std::string_view request) {
  requests_ += request;
  Flush();
}

void Worker::Flush() {
  while (!requests_.empty()) {
    ssize_t size = send(control_.fd.get(), requests_.data(), requests_.size(), MSG_NOSIGNAL);
    if (size < 0) return;  // it is full and EPOLLOUT comes, or it has ended and Pump() sees that
    requests_.erase(0, static_cast<size_t>(size));
  }
}

void Worker::Interrupt() {
  if (pid_ > 1) kill(-pid_, SIGINT);
}

// What the worker wrote to its output before it sent an event has to come before that event. The
// two go different ways; but what was written before lies in the pipe when the event is read, so
// that the pipe is emptied once more, of no more than a pipe holds.
void Worker::Pump() {
  if (pumping_) return;
  pumping_ = true;
  size_t done = 0;
  while (client_->TakesMore()) {
    if (done >= kTurnBytes) {
      Yield();
      break;
    }
    if (events_.empty() && !gone_ && ReadControl()) {
      for (Source& stream : streams_) {
        stream.limit = kPipeSize;
        // The loop may not have come to say so yet.
        stream.readable = stream.fd.valid();
      }
    }
    const bool barrier = !events_.empty() || gone_;
    size_t size = 0;
    for (Stream stream : {kOutput, kError}) {
      if (!barrier || streams_[stream].limit > 0) size += ReadOutput(stream);
    }
    done += size;
    if (size > 0) continue;
    if (!events_.empty()) {
      std::string events;
      events.swap(events_);
      lines_.Feed(events, client_);
    } else if (gone_) {
      pumping_ = false;
      client_->OnGone();
      return;
    } else {
      break;
    }
  }
  pumping_ = false;
}

// Has Pump() called again after others.
void Worker::Yield() {
  for (Source& stream : streams_) {
    // It cannot fail: the descriptor is watched.
    if (stream.readable) (void)loop_->Modify(stream.fd.get(), EPOLLIN | EPOLLET);
  }
}

// True if that brought events, or the end of them.
bool Worker::ReadControl() {
  if (!control_.readable) return false;
  ssize_t size = recv(control_.fd.get(), scratch_.data(), scratch_.size(), 0);
  if (size < 0 && errno == EAGAIN) {
    control_.readable = false;
    return false;
  }
  if (size <= 0) {
    gone_ = true;
    return true;
  }
  auto count = static_cast<size_t>(size);
  // What gives less than was asked for is empty, and a call is saved; only its end brings no event
  // of its own.
  if (count < scratch_.size() && !control_.ending) control_.readable = false;
  events_.assign(scratch_.data(), count);
  return true;
}

// How much that brought.
size_t Worker::ReadOutput(Stream stream) {
  Source& source = streams_[stream];
  if (!source.readable) return 0;
  const bool barrier = !events_.empty() || gone_;
  const size_t wanted = barrier ? std::min(scratch_.size(), source.limit) : scratch_.size();
  ssize_t size = read(source.fd.get(), scratch_.data(), wanted);
  if (size <= 0) {
    source.readable = false;  // nobody catches signals here: it is empty, or at its end
    return 0;
  }
  auto count = static_cast<size_t>(size);
  if (count < wanted) source.readable = false;
  source.limit -= std::min(source.limit, count);
  client_->OnOutput(stream, {scratch_.data(), count});
  return count;
}

}  // namespace cube::agent::interpreter
