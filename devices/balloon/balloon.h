#ifndef CUBE_DEVICES_BALLOON_BALLOON_H_
#define CUBE_DEVICES_BALLOON_BALLOON_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "devices/balloon/spec.h"
#include "devices/virtio/device.h"

namespace cube::devices {

// The memory balloon (virtio 1.2 section 5.5). It gives memory back to the host in two ways: pages
// that the guest reports as free, which happens by itself, so that an idle sandbox shrinks; and
// pages the host asks for by SetTarget(), which the guest may take back when it runs out of memory.
//
// What a page given back holds afterwards is undefined: zeros, or the content of the snapshot the
// guest was cloned from. PAGE_POISON is not offered for that reason, and a driver that relies on
// the content of free pages does not report any (docs/devices.md).
class Balloon : public virtio::Device {
 public:
  // Page numbers looked at in one request; Linux sends 256.
  static constexpr uint32_t kMaxPageNumbers = 4096;
  // Requests handled before others have their turn on the event loop.
  static constexpr int kMaxBatch = 32;

  // Wants `target` pages of 4 KiB from the start.
  static std::unique_ptr<Balloon> Create(uint32_t target = 0);

  // Asks the guest to have `pages` pages of 4 KiB in the balloon; it does so when it can. Any
  // thread, without the device's lock.
  void SetTarget(uint32_t pages);
  // Pages the driver says are in the balloon. Any thread, without the device's lock.
  uint32_t actual();

  uint32_t id() const override { return virtio::kDeviceBalloon; }
  uint64_t features() const override {
    return balloon::kFeatureReporting | balloon::kFeatureDeflateOnOom;
  }
  // Linux reports up to 32 areas at a time and wants descriptors for them.
  std::vector<uint16_t> queue_sizes() const override { return {64, 64, 64}; }
  void ReadConfig(uint32_t offset, std::span<uint8_t> out) override {
    virtio::ReadConfigFrom(config_, offset, out);
  }
  bool WriteConfig(uint32_t offset, std::span<const uint8_t> bytes) override;
  void Activate(uint64_t) override {}
  void Reset() override { config_.actual = 0; }
  void ProcessQueue(uint32_t index) override;
  // Asks for all queues to be looked at: a batch may have been cut short.
  void Resume() override;
  uint32_t state_version() const override { return 1; }
  Status Save(StateWriter* state) override;
  Status Load(StateReader* state) override;
  void Metrics(const Count& count) const override;

 private:
  explicit Balloon(uint32_t target) : config_{target, 0} {}

  void Inflate();
  void Report();
  void Discard(std::span<uint8_t> bytes, uint64_t* pages);

  balloon::Config config_;
  virtio::DescriptorChain chain_;
  std::vector<iovec> iovecs_;
  std::vector<uint32_t> page_numbers_;

  uint64_t reported_pages_ = 0;
  uint64_t inflated_pages_ = 0;
  uint64_t deflate_requests_ = 0;
  uint64_t refused_ = 0;  // pages and areas that are not RAM of the guest's, or that the host keeps
};

}  // namespace cube::devices

#endif  // CUBE_DEVICES_BALLOON_BALLOON_H_
