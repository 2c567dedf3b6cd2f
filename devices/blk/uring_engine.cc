#include "devices/blk/uring_engine.h"

#include <cerrno>

namespace cube::devices::blk {
namespace {

// What cannot be done at once goes to kernel threads, which are memory: writes to a file go one at
// a time there anyway.
constexpr unsigned kMaxKernelThreads = 4;

}  // namespace

Result<std::unique_ptr<IoEngine>> UringEngine::Create(uint32_t depth) {
  std::unique_ptr<UringEngine> engine(new UringEngine());
  CUBE_ASSIGN(engine->event_, NewEventFd());
  int error = io_uring_queue_init(depth, &engine->ring_, IORING_SETUP_COOP_TASKRUN);
  if (error == -EINVAL) error = io_uring_queue_init(depth, &engine->ring_, 0);
  if (error < 0) {
    errno = -error;
    return ErrnoError("cannot make an io_uring");
  }
  engine->ring_made_ = true;
  error = io_uring_register_eventfd(&engine->ring_, engine->event_.get());
  if (error < 0) {
    errno = -error;
    return ErrnoError("cannot watch an io_uring");
  }
  // A bound on memory, not needed for anything to work.
  unsigned limits[2] = {kMaxKernelThreads, kMaxKernelThreads};
  (void)io_uring_register_iowq_max_workers(&engine->ring_, limits);
  return std::unique_ptr<IoEngine>(std::move(engine));
}

UringEngine::~UringEngine() {
  if (ring_made_) io_uring_queue_exit(&ring_);
}

bool UringEngine::Prepare(IoOperation* operation) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (sqe == nullptr) return false;
  auto count = static_cast<unsigned>(operation->buffers.size());
  switch (operation->kind) {
    case IoOperation::Kind::kRead:
      io_uring_prep_readv(sqe, operation->fd, operation->buffers.data(), count, operation->offset);
      break;
    case IoOperation::Kind::kWrite:
      io_uring_prep_writev(sqe, operation->fd, operation->buffers.data(), count, operation->offset);
      break;
    case IoOperation::Kind::kAllocate:
      io_uring_prep_fallocate(sqe, operation->fd, operation->mode,
                              static_cast<off_t>(operation->offset),
                              static_cast<off_t>(operation->size));
      break;
    case IoOperation::Kind::kSync:
      io_uring_prep_fsync(sqe, operation->fd, IORING_FSYNC_DATASYNC);
      break;
  }
  io_uring_sqe_set_data(sqe, operation);
  return true;
}

void UringEngine::Submit(IoOperation* operation) {
  if (reader_.Try(operation) || writer_.Try(operation)) {
    prompt_.push_back(operation);
  } else if (!overflow_.empty() || !Prepare(operation)) {
    overflow_.push_back(operation);
  }
}

void UringEngine::Flush() {
  int submitted = 0;
  do {
    while (!overflow_.empty() && Prepare(overflow_.front())) overflow_.pop_front();
    if (io_uring_sq_ready(&ring_) == 0) break;
    submitted = io_uring_submit(&ring_);
  } while (submitted == -EINTR || (submitted >= 0 && !overflow_.empty()));
  // The kernel is short of memory for now: the event loop comes back to it.
  if (submitted < 0) SignalEventFd(event_.get());
}

void UringEngine::Reap(std::vector<IoOperation*>* done) {
  done->insert(done->end(), prompt_.begin(), prompt_.end());
  prompt_.clear();
  if (io_uring_cq_ready(&ring_) == 0) return;
  // Before they are taken: one that comes meanwhile is announced again.
  DrainEventFd(event_.get());
  io_uring_cqe* cqe;
  while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
    auto* operation = static_cast<IoOperation*>(io_uring_cqe_get_data(cqe));
    operation->result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    done->push_back(operation);
  }
}

void UringEngine::Wait() {
  if (!prompt_.empty()) return;
  if (io_uring_sq_ready(&ring_) != 0 || !overflow_.empty()) Flush();
  io_uring_cqe* cqe;
  while (io_uring_wait_cqe(&ring_, &cqe) == -EINTR) {
  }
}

}  // namespace cube::devices::blk
