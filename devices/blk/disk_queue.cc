#include "devices/blk/disk_queue.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace cube::devices::blk {
namespace {

using Kind = DiskTask::Kind;
using Phase = DiskTask::Phase;

constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr int kZeroRange = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

IoOperation Operation(IoOperation::Kind kind, int fd, uint64_t offset, uint64_t size,
                      std::span<iovec> buffers = {}, int mode = 0) {
  return {kind, fd, mode, offset, size, buffers, nullptr, 0};
}

// Where a task's buffers are read from or written to, from front to back.
class Cursor {
 public:
  explicit Cursor(std::span<const iovec> buffers) : buffers_(buffers) {}

  // The next `size` bytes, in pieces.
  template <typename Use>
  void Take(uint64_t size, Use use) {
    while (size != 0) {
      const iovec& buffer = buffers_.front();
      uint64_t here = std::min<uint64_t>(size, buffer.iov_len - offset_);
      if (here != 0) use(iovec{static_cast<uint8_t*>(buffer.iov_base) + offset_, here});
      size -= here;
      offset_ += here;
      if (offset_ == buffer.iov_len) {
        buffers_ = buffers_.subspan(1);
        offset_ = 0;
      }
    }
  }

 private:
  std::span<const iovec> buffers_;
  uint64_t offset_ = 0;
};

// Takes what was moved off the front of an operation.
void Advance(IoOperation* operation, uint64_t moved) {
  operation->offset += moved;
  operation->size -= moved;
  while (moved != 0) {
    iovec& front = operation->buffers.front();
    uint64_t here = std::min<uint64_t>(moved, front.iov_len);
    front.iov_base = static_cast<uint8_t*>(front.iov_base) + here;
    front.iov_len -= here;
    moved -= here;
    if (front.iov_len == 0) operation->buffers = operation->buffers.subspan(1);
  }
}

}  // namespace

DiskQueue::DiskQueue(Disk* disk, IoEngine::Kind kind, uint32_t depth,
                     std::function<void(DiskTask*)> done, std::function<Status(int fd)> watch)
    : disk_(disk), kind_(kind), depth_(depth), done_(std::move(done)), watch_(std::move(watch)) {}

DiskQueue::~DiskQueue() { Drain(); }

// ---- the engine

bool DiskQueue::EnsureEngine() {
  if (engine_) return true;
  auto engine = IoEngine::Create(kind_, depth_);
  if (!engine.ok() || !watch_((*engine)->fd()).ok()) return false;
  engine_ = std::move(engine).value();
  return true;
}

bool DiskQueue::Run() {
  bool any = false;
  while (engine_) {
    engine_->Flush();
    if (!Reap()) break;
    any = true;
  }
  return any;
}

void DiskQueue::OnReady() {
  if (Run() || !engine_) return;
  engine_->Acknowledge();
  Run();
}

void DiskQueue::Drain() {
  Run();
  while (tasks_ != 0) {
    engine_->Wait();
    Run();
  }
}

bool DiskQueue::Reap() {
  reaped_.clear();
  engine_->Reap(&reaped_);
  for (IoOperation* operation : reaped_) OnOperation(operation);
  return !reaped_.empty();
}

void DiskQueue::SubmitAll(DiskTask* task) {
  if (!EnsureEngine()) {
    task->error = EIO;
    NextPhase(task);
    return;
  }
  task->under_way = static_cast<uint32_t>(task->operations.size());
  for (IoOperation& operation : task->operations) {
    operation.owner = task;
    engine_->Submit(&operation);
  }
}

void DiskQueue::OnOperation(IoOperation* operation) {
  auto* task = static_cast<DiskTask*>(operation->owner);
  bool moves =
      operation->kind == IoOperation::Kind::kRead || operation->kind == IoOperation::Kind::kWrite;
  int64_t result = operation->result;
  if (result == -EINTR || result == -EAGAIN) {
    engine_->Submit(operation);
    return;
  }
  if (result == -EOPNOTSUPP && operation->mode == kZeroRange) {
    operation->mode = kPunch;
    engine_->Submit(operation);
    return;
  }
  if (result == -EOPNOTSUPP && task->kind == Kind::kDiscard) {
    task->untouched = true;
  } else if (result < 0) {
    task->error = static_cast<int>(-result);
  } else if (moves && result == 0) {
    task->error = EIO;  // the file has become shorter
  } else if (moves && static_cast<uint64_t>(result) < operation->size) {
    Advance(operation, static_cast<uint64_t>(result));
    engine_->Submit(operation);
    return;
  }
  if (--task->under_way == 0) NextPhase(task);
}

// ---- tasks

void DiskQueue::Start(DiskTask* task) {
  ++tasks_;
  task->error = 0;
  task->under_way = 0;
  task->untouched = false;
  task->edges.clear();
  switch (task->kind) {
    case Kind::kRead:
      StartRead(task);
      return;
    case Kind::kFlush:
      if (disk_->read_only() || !Durable()) {
        Finish(task);
        return;
      }
      flushes_.push_back(task);
      if (!commit_under_way_) StartCommit();
      return;
    default:
      if (!Begin(task)) waiting_.push_back(task);
      return;
  }
}

void DiskQueue::StartRead(DiskTask* task) {
  task->phase = Phase::kData;
  task->operations.clear();
  extents_.clear();
  disk_->Map(task->offset, task->size, &extents_);
  if (extents_.size() == 1) {
    const Disk::Extent& extent = extents_.front();
    task->operations.push_back(Operation(IoOperation::Kind::kRead, extent.fd, extent.file_offset,
                                         extent.size, task->buffers));
  } else {
    task->pieces.clear();
    task->pieces.reserve(task->buffers.size() + extents_.size());  // views into it must stay
    Cursor cursor(task->buffers);
    for (const Disk::Extent& extent : extents_) {
      size_t first = task->pieces.size();
      cursor.Take(extent.size, [task](const iovec& piece) { task->pieces.push_back(piece); });
      task->operations.push_back(Operation(IoOperation::Kind::kRead, extent.fd, extent.file_offset,
                                           extent.size, std::span(task->pieces).subspan(first)));
    }
  }
  SubmitAll(task);
}

bool DiskQueue::Durable() const {
  return disk_->overlay() == nullptr || !disk_->overlay()->temporary();
}

// Which blocks of the overlay a task touches, and which of them it must copy up.
void DiskQueue::PlanBlocks(DiskTask* task) const {
  const OverlayFile& overlay = *disk_->overlay();
  const uint64_t block = overlay.block_size();
  uint64_t end = task->offset + task->size;
  task->first_block = task->offset / block;
  task->last_block = (end - 1) / block;
  task->edges.clear();
  auto add_edge = [&](uint64_t index) {
    if (overlay.present().Get(index)) return;
    uint64_t start = index * block;
    task->edges.push_back({start, std::min(block, disk_->size() - start), nullptr});
  };
  bool whole_head = task->offset % block == 0;
  bool whole_tail = end % block == 0 || end == disk_->size();
  bool single = task->first_block == task->last_block;
  if (!whole_head || (single && !whole_tail)) add_edge(task->first_block);
  if (!single && !whole_tail) add_edge(task->last_block);
}

// What copies a block up must be alone with it: another write to the block would be lost, or lose
// what it writes beside.
bool DiskQueue::MustWait(const DiskTask& task) const {
  return std::ranges::any_of(writes_, [&task](const DiskTask* other) {
    return (!task.edges.empty() || !other->edges.empty()) &&
           task.first_block <= other->last_block && other->first_block <= task.last_block;
  });
}

bool DiskQueue::Begin(DiskTask* task) {
  if (disk_->overlay() != nullptr) {
    if (task->kind == Kind::kDiscard) {
      // Only blocks that are discarded whole: the bit of a block stands for all of it.
      const uint64_t block = disk_->overlay()->block_size();
      uint64_t start = (task->offset + block - 1) / block * block;
      uint64_t end = task->offset + task->size;
      if (end != disk_->size()) end = end / block * block;
      if (start >= end) {
        task->untouched = true;
        writes_.push_back(task);
        FinishWrite(task);
        return true;
      }
      task->offset = start;
      task->size = end - start;
    }
    PlanBlocks(task);
    if (MustWait(*task)) return false;
  }
  writes_.push_back(task);
  if (task->edges.empty()) {
    StartData(task);
  } else {
    StartEdges(task);
  }
  return true;
}

void DiskQueue::StartEdges(DiskTask* task) {
  task->phase = Phase::kEdges;
  task->operations.clear();
  task->pieces.clear();
  extents_.clear();
  for (DiskTask::Edge& edge : task->edges) {
    edge.bytes = std::make_unique_for_overwrite<uint8_t[]>(edge.size);
    disk_->Map(edge.start, edge.size, &extents_);
    ++copied_blocks_;
  }
  task->pieces.reserve(extents_.size());
  size_t next = 0;
  for (DiskTask::Edge& edge : task->edges) {
    for (uint64_t at = 0; at < edge.size; at += extents_[next++].size) {
      const Disk::Extent& extent = extents_[next];
      task->pieces.push_back({edge.bytes.get() + at, extent.size});
      task->operations.push_back(Operation(IoOperation::Kind::kRead, extent.fd, extent.file_offset,
                                           extent.size, {&task->pieces.back(), 1}));
    }
  }
  SubmitAll(task);
}

void DiskQueue::StartData(DiskTask* task) {
  task->phase = Phase::kData;
  task->operations.clear();
  task->pieces.clear();
  task->pieces.reserve(task->buffers.size() + 2);
  const bool zero = task->kind != Kind::kWrite;
  // From where to where the task itself writes; the edges, whole blocks, come before and after.
  uint64_t start = task->offset;
  uint64_t end = task->offset + task->size;
  Cursor cursor(task->buffers);
  auto write = [&](uint64_t offset, uint64_t size) {
    task->operations.push_back(Operation(IoOperation::Kind::kWrite, disk_->write_fd(),
                                         disk_->WriteOffset(offset), size,
                                         {&task->pieces.back(), 1}));
  };
  auto fill_edge = [&](DiskTask::Edge& edge, uint64_t from, uint64_t to) {
    uint8_t* at = edge.bytes.get() + (from - edge.start);
    if (zero) {
      memset(at, 0, to - from);
    } else {
      cursor.Take(to - from, [&at](const iovec& piece) {
        memcpy(at, piece.iov_base, piece.iov_len);
        at += piece.iov_len;
      });
    }
    task->pieces.push_back({edge.bytes.get(), edge.size});
    if (zero) write(edge.start, edge.size);
  };
  uint64_t write_start = start, write_end = end;
  DiskTask::Edge* tail = nullptr;
  for (DiskTask::Edge& edge : task->edges) {
    if (edge.start <= task->offset) {
      start = std::min(end, edge.start + edge.size);
      write_start = edge.start;
      write_end = std::max(write_end, edge.start + edge.size);
      fill_edge(edge, task->offset, start);
    } else {
      tail = &edge;
      write_end = edge.start + edge.size;
    }
  }
  uint64_t middle_end = tail != nullptr ? tail->start : end;
  if (zero && start < middle_end) {
    bool punch = task->kind == Kind::kDiscard || task->unmap;
    task->operations.push_back(Operation(IoOperation::Kind::kAllocate, disk_->write_fd(),
                                         disk_->WriteOffset(start), middle_end - start, {},
                                         punch ? kPunch : kZeroRange));
  } else if (!zero) {
    cursor.Take(middle_end - start, [task](const iovec& piece) { task->pieces.push_back(piece); });
  }
  if (tail != nullptr) fill_edge(*tail, tail->start, end);
  if (!zero) {
    task->operations.push_back(Operation(IoOperation::Kind::kWrite, disk_->write_fd(),
                                         disk_->WriteOffset(write_start), write_end - write_start,
                                         task->pieces));
  }
  SubmitAll(task);
}

void DiskQueue::NextPhase(DiskTask* task) {
  if (task == &commit_) {
    NextCommitPhase();
  } else if (task->kind == Kind::kRead) {
    Finish(task);
  } else if (task->phase == Phase::kEdges && task->error == 0) {
    StartData(task);
  } else {
    FinishWrite(task);
  }
}

void DiskQueue::FinishWrite(DiskTask* task) {
  std::erase(writes_, task);
  bool written = task->error == 0 && !task->untouched;
  if (written && disk_->overlay() != nullptr) {
    disk_->overlay()->SetPresent(task->first_block, task->last_block - task->first_block + 1);
  }
  task->edges.clear();
  if (written && write_through_ && Durable()) {
    flushes_.push_back(task);
    if (!commit_under_way_) StartCommit();
  } else {
    Finish(task);
  }
  if (waiting_.empty()) return;
  // In their order; those that still must wait stay.
  std::vector<DiskTask*> waiting = std::exchange(waiting_, {});
  for (DiskTask* other : waiting) {
    if (!Begin(other)) waiting_.push_back(other);
  }
}

void DiskQueue::Finish(DiskTask* task) {
  --tasks_;
  done_(task);
}

// ---- flushes: all that come while one is under way share the next

void DiskQueue::StartCommit() {
  commit_under_way_ = true;
  committing_.swap(flushes_);
  commit_pieces_.clear();
  if (disk_->overlay() != nullptr) commit_pieces_ = disk_->overlay()->TakeUncommitted();
  commit_.error = 0;
  commit_.phase = Phase::kSyncData;
  commit_.operations = {Operation(IoOperation::Kind::kSync, disk_->write_fd(), 0, 0)};
  SubmitAll(&commit_);
}

void DiskQueue::NextCommitPhase() {
  if (commit_.error == 0 && commit_.phase == Phase::kSyncData && !commit_pieces_.empty()) {
    // The data is safe: now the bits that say so.
    commit_.phase = Phase::kWriteBitmap;
    commit_.operations.clear();
    commit_.pieces.clear();
    commit_.pieces.reserve(commit_pieces_.size());
    for (OverlayFile::Piece& piece : commit_pieces_) {
      commit_.pieces.push_back({piece.bytes.data(), piece.bytes.size()});
      commit_.operations.push_back(Operation(IoOperation::Kind::kWrite, disk_->write_fd(),
                                             piece.file_offset, piece.bytes.size(),
                                             {&commit_.pieces.back(), 1}));
    }
    SubmitAll(&commit_);
    return;
  }
  if (commit_.error == 0 && commit_.phase == Phase::kWriteBitmap) {
    commit_.phase = Phase::kSyncBitmap;
    commit_.operations = {Operation(IoOperation::Kind::kSync, disk_->write_fd(), 0, 0)};
    SubmitAll(&commit_);
    return;
  }
  if (commit_.error != 0 && disk_->overlay() != nullptr) disk_->overlay()->PutBack(commit_pieces_);
  commit_pieces_.clear();
  commit_under_way_ = false;
  std::vector<DiskTask*> finished = std::exchange(committing_, {});
  int error = commit_.error;
  for (DiskTask* task : finished) {
    task->error = error;
    Finish(task);
  }
  if (!flushes_.empty() && !commit_under_way_) StartCommit();
}

}  // namespace cube::devices::blk
