#ifndef CUBE_DEVICES_BLK_DISK_QUEUE_H_
#define CUBE_DEVICES_BLK_DISK_QUEUE_H_

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "devices/blk/disk.h"
#include "devices/blk/io_engine.h"

namespace cube::devices::blk {

// Something to be done on a disk. The caller keeps it, and the memory of its buffers, until it is
// done; then it can be used again and keeps its allocations.
struct DiskTask {
  enum class Kind : uint8_t {
    kRead,
    kWrite,
    kZero,     // makes it zeros; deallocates if `unmap`
    kDiscard,  // a hint that what is there is not needed; what can be deallocated reads as zeros
    kFlush,    // what was done before this was started is on stable storage when this is done
  };

  Kind kind = Kind::kRead;
  bool unmap = false;
  uint64_t offset = 0;  // bytes; within the disk, not empty. Not of a flush.
  uint64_t size = 0;
  std::vector<iovec> buffers;  // of reads and writes; their sum is `size`
  int error = 0;               // when done: an errno, or 0

  // The rest is DiskQueue's.
  enum class Phase : uint8_t { kEdges, kData, kSyncData, kWriteBitmap, kSyncBitmap };
  // A block of which a part only is written, and which lies in a layer below: all of it is written.
  struct Edge {
    uint64_t start;  // of the block, on the disk
    uint64_t size;
    std::unique_ptr<uint8_t[]> bytes;
  };
  Phase phase = Phase::kData;
  uint32_t under_way = 0;
  bool untouched = false;  // a discard that the file system below does not do
  uint64_t first_block = 0, last_block = 0;
  std::vector<Edge> edges;
  std::vector<IoOperation> operations;
  std::vector<iovec> pieces;
};

// Carries out tasks on a disk by an engine, any number at once: it finds the files, copies up what
// is written in part, keeps order where that matters, and commits the overlay on a flush. Used
// under one lock.
class DiskQueue {
 public:
  // Calls `done` for each task when it is done, from within Start(), Run() or Drain(). `disk`
  // outlives the queue, and is left alone by others unless idle(). The engine is made at the first
  // task that needs it; `watch` is then told its descriptor, upon which Run() is to be called.
  DiskQueue(Disk* disk, IoEngine::Kind kind, uint32_t depth, std::function<void(DiskTask*)> done,
            std::function<Status(int fd)> watch);
  ~DiskQueue();
  DiskQueue(const DiskQueue&) = delete;
  DiskQueue& operator=(const DiskQueue&) = delete;

  // Whether every write is committed before it is done, for who never flushes.
  void set_write_through(bool write_through) { write_through_ = write_through; }

  // Begins a task. It may be done before this returns, or wait for Run().
  void Start(DiskTask* task);
  // Sets off what was started and takes in what is done; false if nothing was.
  bool Run();
  // The engine's descriptor is readable.
  void OnReady();
  // Waits until every task is done.
  void Drain();
  bool idle() const { return tasks_ == 0; }

  // Name of the engine; empty before it is made.
  const char* engine_name() const { return engine_ ? engine_->name() : ""; }
  // Blocks copied from below because a part of them was written.
  uint64_t copied_blocks() const { return copied_blocks_; }

 private:
  bool EnsureEngine();
  bool Reap();

  // Each begins a phase of a task.
  bool Begin(DiskTask* task);
  void StartRead(DiskTask* task);
  void StartEdges(DiskTask* task);
  void StartData(DiskTask* task);
  void StartCommit();
  void NextPhase(DiskTask* task);
  void NextCommitPhase();
  void Finish(DiskTask* task);
  void FinishWrite(DiskTask* task);

  // Whether anything can be found after the process's end: a temporary overlay is never synced.
  bool Durable() const;
  void PlanBlocks(DiskTask* task) const;
  bool MustWait(const DiskTask& task) const;
  void SubmitAll(DiskTask* task);
  void OnOperation(IoOperation* operation);

  Disk* disk_;
  IoEngine::Kind kind_;
  uint32_t depth_;
  std::function<void(DiskTask*)> done_;
  std::function<Status(int fd)> watch_;
  std::unique_ptr<IoEngine> engine_;
  bool write_through_ = false;

  uint64_t tasks_ = 0;                 // started and not done
  std::vector<DiskTask*> writes_;      // under way on the overlay
  std::vector<DiskTask*> waiting_;     // for a write under way
  std::vector<DiskTask*> flushes_;     // for the next commit
  std::vector<DiskTask*> committing_;  // for this one
  bool commit_under_way_ = false;
  DiskTask commit_;
  std::vector<OverlayFile::Piece> commit_pieces_;
  std::vector<IoOperation*> reaped_;
  std::vector<Disk::Extent> extents_;
  uint64_t copied_blocks_ = 0;
};

}  // namespace cube::devices::blk

#endif  // CUBE_DEVICES_BLK_DISK_QUEUE_H_
