#include "devices/blk/blk.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace cube::devices {
namespace {

using blk::DiskTask;

constexpr int kStarted = -1;
constexpr uint32_t kHeaderSize = sizeof(blk::RequestHeader);

struct SavedBlk {
  uint64_t disk_size;
  uint32_t read_only;
  uint32_t reserved;
};

}  // namespace

Result<std::unique_ptr<Blk>> Blk::Create(blk::Disk disk, const BlkOptions& options,
                                         vmm::EventLoop* loop) {
  if (options.id.size() > blk::kIdSize) {
    return Errorf("disk id '%s' has %zu bytes, at most %u are possible", options.id.c_str(),
                  options.id.size(), blk::kIdSize);
  }
  std::unique_ptr<Blk> device(new Blk(std::move(disk), options, loop));
  CUBE_ASSIGN(device->limiter_, RateLimiter::Create(options.limits, loop, [raw = device.get()] {
                std::lock_guard lock(raw->mutex());
                if (!raw->paused_) raw->ProcessQueue(0);
              }));
  return device;
}

Blk::Blk(blk::Disk disk, const BlkOptions& options, vmm::EventLoop* loop)
    : disk_(std::move(disk)),
      serial_(options.id),
      loop_(loop),
      disk_queue_(
          &disk_, options.engine, kQueueSize,
          [this](DiskTask* task) {
            Finish(static_cast<Request*>(task),
                   task->error == 0 ? blk::kStatusOk : blk::kStatusIoError);
          },
          [this](int fd) -> Status {
            CUBE_TRY(loop_->Add(fd, EPOLLIN, [this](uint32_t) {
              std::lock_guard lock(mutex());
              disk_queue_.OnReady();
              host().queue(0).Notify();
            }));
            watched_fd_ = fd;
            return OkStatus();
          }) {}

Blk::~Blk() {
  abandoned_ = true;
  disk_queue_.Drain();
  if (watched_fd_ >= 0) loop_->Remove(watched_fd_);
  // Nobody is left to hear of an error; the file then has what was committed before.
  if (disk_.overlay() != nullptr && !disk_.overlay()->temporary() &&
      disk_.overlay()->uncommitted()) {
    (void)disk_.overlay()->Commit();
  }
}

uint64_t Blk::features() const {
  uint64_t features =
      blk::kFeatureSegMax | blk::kFeatureBlkSize | blk::kFeatureTopology | blk::kFeatureFlush;
  if (disk_.read_only()) return features | blk::kFeatureReadOnly;
  return features | blk::kFeatureDiscard | blk::kFeatureWriteZeroes;
}

void Blk::ReadConfig(uint32_t offset, std::span<uint8_t> out) {
  uint32_t block = disk_.overlay() != nullptr ? disk_.overlay()->block_size()
                                              : blk::OverlayFile::kDefaultBlockSize;
  auto logical_blocks = static_cast<uint16_t>(block / blk::kSectorSize);
  blk::Config config = {};
  config.capacity = disk_.size() / blk::kSectorSize;
  config.seg_max = kMaxSegments;
  config.blk_size = blk::kSectorSize;
  config.physical_block_exp = 3;  // 4 KiB, a page of the host's cache
  config.min_io_size = logical_blocks;
  config.num_queues = 1;
  if (!disk_.read_only()) {
    config.max_discard_sectors = kMaxDiscardSectors;
    config.max_discard_seg = 1;
    config.discard_sector_alignment = logical_blocks;
    config.max_write_zeroes_sectors = kMaxDiscardSectors;
    config.max_write_zeroes_seg = 1;
    config.write_zeroes_may_unmap = 1;
  }
  virtio::ReadConfigFrom(config, offset, out);
}

void Blk::Activate(uint64_t features) {
  paused_ = abandoned_ = false;
  // 5.2.6.2: who did not take FLUSH relies on writes that are stable when they are done.
  disk_queue_.set_write_through((features & blk::kFeatureFlush) == 0);
}

void Blk::Reset() {
  abandoned_ = true;
  disk_queue_.Drain();
}

void Blk::Quiesce() {
  paused_ = true;
  disk_queue_.Drain();
  host().queue(0).Notify();
}

void Blk::Resume() { ProcessQueue(0); }

void Blk::ProcessQueue(uint32_t) {
  paused_ = false;
  virtio::Virtqueue& queue = host().queue(0);
  bool limited = false;
  uint32_t started = 0;
  do {
    queue.DisableKicks();
    while (started < kMaxBatch && queue.HasAvailable()) {
      if (!limiter_->Ready()) {
        limited = true;  // and come back by its timer
        break;
      }
      Request* request = NewRequest();
      if (!queue.Pop(&request->chain)) {
        FreeRequest(request);
        break;
      }
      ++started;
      StartRequest(request);
    }
    disk_queue_.Run();
    queue.Notify();
  } while (!limited && queue.EnableKicks() && started < kMaxBatch);
  if (!limited && queue.HasAvailable()) host().ProcessLater(0);
}

Blk::Request* Blk::NewRequest() {
  if (free_.empty()) {
    requests_.emplace_back();
    return &requests_.back();
  }
  Request* request = free_.back();
  free_.pop_back();
  return request;
}

void Blk::StartRequest(Request* request) {
  auto header = request->chain.ReadObject<blk::RequestHeader>(0);
  int status = blk::kStatusIoError;
  if (!header || request->chain.writable_size() == 0) {
    // 5.2.6: a header, and a byte for the status. Without the latter nothing can be said.
    ++counters_.bad_requests;
    limiter_->Charge(0);
  } else {
    switch (header->type) {
      case blk::kRequestIn:
      case blk::kRequestOut:
        status = StartTransfer(request, *header);
        break;
      case blk::kRequestFlush:
        status = StartFlush(request);
        break;
      case blk::kRequestGetId:
        status = GetId(request);
        break;
      case blk::kRequestDiscard:
      case blk::kRequestWriteZeroes:
        status = StartDiscard(request, *header);
        break;
      default:
        ++counters_.bad_requests;
        limiter_->Charge(0);
        status = blk::kStatusUnsupported;
        break;
    }
  }
  if (status != kStarted) Finish(request, static_cast<uint8_t>(status));
}

bool Blk::InDisk(uint64_t sector, uint64_t size) const {
  uint64_t sectors = disk_.size() / blk::kSectorSize;
  return sector <= sectors && size / blk::kSectorSize <= sectors - sector;
}

int Blk::StartTransfer(Request* request, const blk::RequestHeader& header) {
  bool read = header.type == blk::kRequestIn;
  uint32_t size =
      read ? request->chain.writable_size() - 1 : request->chain.readable_size() - kHeaderSize;
  limiter_->Charge(size);
  // 5.2.6.1: whole sectors, inside the disk.
  if (size == 0 || size % blk::kSectorSize != 0 || !InDisk(header.sector, size) ||
      (!read && disk_.read_only())) {
    ++counters_.bad_requests;
    return blk::kStatusIoError;
  }
  DiskTask& task = *request;
  task.kind = read ? DiskTask::Kind::kRead : DiskTask::Kind::kWrite;
  task.offset = header.sector * blk::kSectorSize;
  task.size = size;
  task.buffers.clear();
  if (read) {
    request->chain.WritableIovecs(0, size, &task.buffers);
    ++counters_.reads;
    counters_.read_bytes += size;
  } else {
    request->chain.ReadableIovecs(kHeaderSize, size, &task.buffers);
    ++counters_.writes;
    counters_.written_bytes += size;
  }
  disk_queue_.Start(&task);
  return kStarted;
}

int Blk::StartDiscard(Request* request, const blk::RequestHeader& header) {
  limiter_->Charge(0);
  bool discard = header.type == blk::kRequestDiscard;
  auto segment = request->chain.ReadObject<blk::DiscardSegment>(kHeaderSize);
  // One segment, as the configuration says.
  if (disk_.read_only() || !segment ||
      request->chain.readable_size() != kHeaderSize + sizeof *segment) {
    ++counters_.bad_requests;
    return blk::kStatusIoError;
  }
  // 5.2.6.2: flags that are not known, or unmap on a discard.
  if ((segment->flags & ~(discard ? 0u : blk::kSegmentUnmap)) != 0) {
    ++counters_.bad_requests;
    return blk::kStatusUnsupported;
  }
  uint64_t size = uint64_t{segment->sector_count} * blk::kSectorSize;
  if (segment->sector_count > kMaxDiscardSectors || !InDisk(segment->sector, size)) {
    ++counters_.bad_requests;
    return blk::kStatusIoError;
  }
  ++(discard ? counters_.discards : counters_.zeroes);
  if (size == 0) return blk::kStatusOk;
  DiskTask& task = *request;
  task.kind = discard ? DiskTask::Kind::kDiscard : DiskTask::Kind::kZero;
  task.unmap = (segment->flags & blk::kSegmentUnmap) != 0;
  task.offset = segment->sector * blk::kSectorSize;
  task.size = size;
  task.buffers.clear();
  disk_queue_.Start(&task);
  return kStarted;
}

int Blk::StartFlush(Request* request) {
  limiter_->Charge(0);
  ++counters_.flushes;
  request->kind = DiskTask::Kind::kFlush;
  disk_queue_.Start(request);
  return kStarted;
}

int Blk::GetId(Request* request) {
  limiter_->Charge(0);
  uint8_t id[blk::kIdSize] = {};
  memcpy(id, serial_.data(), serial_.size());
  uint32_t size = std::min(request->chain.writable_size() - 1, blk::kIdSize);
  request->chain.Write(0, std::span(id).first(size));
  return blk::kStatusOk;
}

void Blk::Finish(Request* request, uint8_t status) {
  if (status != blk::kStatusOk) ++counters_.errors;
  if (abandoned_) {
    request->chain.Abandon();
  } else {
    uint32_t written = 0;
    // The status is the last byte there is (5.2.6). What lies before it counts as written too: it
    // was, or the status says that it is not to be used.
    uint32_t writable = request->chain.writable_size();
    if (writable != 0) {
      request->chain.WriteObject(writable - 1, status);
      written = writable;
    }
    host().queue(0).Push(&request->chain, written);
  }
  FreeRequest(request);
}

Status Blk::Save(StateWriter* state) {
  state->Put(SavedBlk{disk_.size(), disk_.read_only() ? 1u : 0u, 0});
  limiter_->Save(state);
  return OkStatus();
}

Status Blk::Load(StateReader* state) {
  SavedBlk saved;
  CUBE_TRY(state->Get(&saved));
  if (saved.disk_size != disk_.size() || saved.read_only != (disk_.read_only() ? 1u : 0u)) {
    return Errorf("saved with a %s disk of %llu bytes, this one is %s and has %llu",
                  saved.read_only != 0 ? "read-only" : "writable",
                  static_cast<unsigned long long>(saved.disk_size),
                  disk_.read_only() ? "read-only" : "writable",
                  static_cast<unsigned long long>(disk_.size()));
  }
  return limiter_->Load(state);
}

void Blk::Metrics(const Count& count) const {
  count("reads", counters_.reads);
  count("read_bytes", counters_.read_bytes);
  count("writes", counters_.writes);
  count("written_bytes", counters_.written_bytes);
  count("flushes", counters_.flushes);
  count("discards", counters_.discards);
  count("write_zeroes", counters_.zeroes);
  count("copied_blocks", disk_queue_.copied_blocks());
  count("errors", counters_.errors);
  count("bad_requests", counters_.bad_requests);
  count("rate_limited", limiter_->limited_count());
}

}  // namespace cube::devices
