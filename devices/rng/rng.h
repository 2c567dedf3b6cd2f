#ifndef CUBE_DEVICES_RNG_RNG_H_
#define CUBE_DEVICES_RNG_RNG_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "devices/virtio/device.h"

namespace cube::devices {

// The entropy device (virtio 1.2 section 5.4): fills buffers with the host's getrandom(2). It has
// no state: nothing random is ever saved.
class Rng : public virtio::Device {
 public:
  // Bounds what one request makes the host generate; the driver asks again for more.
  static constexpr uint32_t kMaxRequest = 64 * 1024;
  // Requests answered before others on the event loop have their turn.
  static constexpr uint32_t kMaxBatch = 16;

  static std::unique_ptr<Rng> Create() { return std::make_unique<Rng>(); }

  uint32_t id() const override { return virtio::kDeviceEntropy; }
  uint64_t features() const override { return 0; }
  std::vector<uint16_t> queue_sizes() const override { return {64}; }
  void ReadConfig(uint32_t offset, std::span<uint8_t> out) override;
  void Activate(uint64_t) override {}
  void Reset() override {}
  void ProcessQueue(uint32_t index) override;
  uint32_t state_version() const override { return 1; }
  Status Save(StateWriter*) override { return OkStatus(); }
  Status Load(StateReader*) override { return OkStatus(); }
  void Metrics(const Count& count) const override { count("bytes", bytes_); }

 private:
  virtio::DescriptorChain chain_;
  std::vector<iovec> iovecs_;
  uint64_t bytes_ = 0;
};

}  // namespace cube::devices

#endif  // CUBE_DEVICES_RNG_RNG_H_
