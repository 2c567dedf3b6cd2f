#include "devices/blk/thread_engine.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

namespace cube::devices::blk {
namespace {

int64_t Execute(const IoOperation& operation) {
  auto count = static_cast<int>(operation.buffers.size());
  auto offset = static_cast<off_t>(operation.offset);
  int64_t result = 0;
  switch (operation.kind) {
    case IoOperation::Kind::kRead:
      result = preadv(operation.fd, operation.buffers.data(), count, offset);
      break;
    case IoOperation::Kind::kWrite:
      result = pwritev(operation.fd, operation.buffers.data(), count, offset);
      break;
    case IoOperation::Kind::kAllocate:
      result = fallocate(operation.fd, operation.mode, offset, static_cast<off_t>(operation.size));
      break;
    case IoOperation::Kind::kSync:
      result = fdatasync(operation.fd);
      break;
  }
  return result < 0 ? -errno : result;
}

}  // namespace

Result<std::unique_ptr<IoEngine>> ThreadEngine::Create() {
  std::unique_ptr<ThreadEngine> engine(new ThreadEngine());
  CUBE_ASSIGN(engine->event_, NewEventFd());
  // Signals are the event loop's.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  engine->thread_ = std::thread([raw = engine.get()] { raw->Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return std::unique_ptr<IoEngine>(std::move(engine));
}

ThreadEngine::~ThreadEngine() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  submitted_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void ThreadEngine::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    submitted_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    IoOperation* operation = waiting_.front();
    waiting_.pop_front();
    lock.unlock();
    operation->result = Execute(*operation);
    lock.lock();
    done_.push_back(operation);
    SignalEventFd(event_.get());
    finished_.notify_one();
  }
}

void ThreadEngine::Submit(IoOperation* operation) {
  {
    std::lock_guard lock(mutex_);
    waiting_.push_back(operation);
  }
  submitted_.notify_one();
}

void ThreadEngine::Reap(std::vector<IoOperation*>* done) {
  std::lock_guard lock(mutex_);
  if (done_.empty()) return;
  DrainEventFd(event_.get());
  done->insert(done->end(), done_.begin(), done_.end());
  done_.clear();
}

void ThreadEngine::Wait() {
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [this] { return !done_.empty(); });
}

}  // namespace cube::devices::blk
