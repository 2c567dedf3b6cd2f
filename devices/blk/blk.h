#ifndef CUBE_DEVICES_BLK_BLK_H_
#define CUBE_DEVICES_BLK_BLK_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "devices/blk/disk.h"
#include "devices/blk/disk_queue.h"
#include "devices/blk/spec.h"
#include "devices/rate_limiter/rate_limiter.h"
#include "devices/virtio/device.h"
#include "vmm/event_loop.h"

namespace cube::devices {

struct BlkOptions {
  std::string id;  // what the guest reads as the disk's serial number, at most 20 bytes
  RateLimits limits;
  blk::IoEngine::Kind engine = blk::IoEngine::Kind::kAuto;
};

// A block device (virtio 1.2 section 5.2) on a Disk. Requests are taken in batches: one submission
// to the host's kernel, and one interrupt, for all that the driver has made available.
class Blk : public virtio::Device {
 public:
  static constexpr uint16_t kQueueSize = 256;
  // A chain has its header and its status beside the segments.
  static constexpr uint32_t kMaxSegments = kQueueSize - 2;
  // Requests started before others on the event loop have their turn.
  static constexpr uint32_t kMaxBatch = 64;
  // Bounds for how long one discard keeps the host busy.
  static constexpr uint32_t kMaxDiscardSectors = 1 << 22;  // 2 GiB

  // `loop` outlives the device.
  static Result<std::unique_ptr<Blk>> Create(blk::Disk disk, const BlkOptions& options,
                                             vmm::EventLoop* loop);
  // Commits what was written.
  ~Blk() override;

  uint32_t id() const override { return virtio::kDeviceBlock; }
  uint64_t features() const override;
  std::vector<uint16_t> queue_sizes() const override { return {kQueueSize}; }
  void ReadConfig(uint32_t offset, std::span<uint8_t> out) override;
  void Activate(uint64_t features) override;
  void Reset() override;
  void ProcessQueue(uint32_t index) override;
  void Quiesce() override;
  void Resume() override;
  uint32_t state_version() const override { return 1; }
  Status Save(StateWriter* state) override;
  Status Load(StateReader* state) override;
  void Metrics(const Count& count) const override;

  // For snapshots: between Quiesce() and Resume(), or before the guest runs.
  blk::Disk& disk() { return disk_; }
  // What carries requests out; empty until the first one.
  std::string engine_name() const { return disk_queue_.engine_name(); }

 private:
  struct Request : blk::DiskTask {
    virtio::DescriptorChain chain;
  };

  Blk(blk::Disk disk, const BlkOptions& options, vmm::EventLoop* loop);

  void StartRequest(Request* request);
  // Each returns the status that ends the request, or kStarted.
  int StartTransfer(Request* request, const blk::RequestHeader& header);
  int StartDiscard(Request* request, const blk::RequestHeader& header);
  int StartFlush(Request* request);
  int GetId(Request* request);
  bool InDisk(uint64_t sector, uint64_t size) const;
  void Finish(Request* request, uint8_t status);

  Request* NewRequest();
  void FreeRequest(Request* request) { free_.push_back(request); }

  blk::Disk disk_;
  std::string serial_;
  vmm::EventLoop* loop_;
  std::unique_ptr<RateLimiter> limiter_;
  blk::DiskQueue disk_queue_;
  int watched_fd_ = -1;
  bool paused_ = false;     // by Quiesce()
  bool abandoned_ = false;  // by Reset(): what is done is not given back

  std::deque<Request> requests_;  // grows to as many as were ever under way at once
  std::vector<Request*> free_;

  struct Counters {
    uint64_t reads = 0, read_bytes = 0;
    uint64_t writes = 0, written_bytes = 0;
    uint64_t flushes = 0, discards = 0, zeroes = 0;
    uint64_t errors = 0, bad_requests = 0;
  };
  Counters counters_;
};

}  // namespace cube::devices

#endif  // CUBE_DEVICES_BLK_BLK_H_
