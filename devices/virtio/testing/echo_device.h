#ifndef CUBE_DEVICES_VIRTIO_TESTING_ECHO_DEVICE_H_
#define CUBE_DEVICES_VIRTIO_TESTING_ECHO_DEVICE_H_

#include <cstring>
#include <memory>
#include <vector>

#include "devices/virtio/device.h"
#include "vmm/event_loop.h"

namespace cube::devices::virtio::fake {

// A device that writes back what it reads, for tests of queues and transport. Queue 1 holds its
// chains until FinishHeld().
class EchoDevice : public Device {
 public:
  static constexpr uint64_t kFeature = 1 << 5;
  struct Config {
    uint32_t first = 0x11223344;
    uint32_t second = 0;
  };

  static std::unique_ptr<Device> Make(vmm::EventLoop*) { return std::make_unique<EchoDevice>(); }
  ~EchoDevice() override { Abandon(); }

  uint32_t id() const override { return 42; }
  uint64_t features() const override { return kFeature; }
  std::vector<uint16_t> queue_sizes() const override { return {16, 8}; }
  void ReadConfig(uint32_t offset, std::span<uint8_t> out) override {
    ReadConfigFrom(config, offset, out);
  }
  bool WriteConfig(uint32_t offset, std::span<const uint8_t> bytes) override {
    if (offset != 4 || bytes.size() != sizeof config.second) return false;
    memcpy(&config.second, bytes.data(), bytes.size());
    return true;
  }
  void Activate(uint64_t features) override { active_features = features; }
  void Reset() override {
    Abandon();
    ++resets;
  }
  void ProcessQueue(uint32_t index) override {
    Virtqueue& queue = host().queue(index);
    do {
      queue.DisableKicks();
      DescriptorChain chain;
      while (queue.Pop(&chain)) {
        if (index == 1) {
          held.push_back(std::move(chain));
        } else {
          Echo(queue, &chain);
        }
      }
      queue.Notify();
    } while (queue.EnableKicks());
  }
  void FinishHeld() {
    for (DescriptorChain& chain : held) Echo(host().queue(1), &chain);
    held.clear();
    host().queue(1).Notify();
  }
  void Quiesce() override { FinishHeld(); }
  uint32_t state_version() const override { return 3; }
  Status Save(StateWriter* state) override {
    state->Put(config.second);
    return OkStatus();
  }
  Status Load(StateReader* state) override { return state->Get(&config.second); }
  // Pops from queue 1 and gives the chain back.
  void Undo() {
    DescriptorChain chain;
    if (host().queue(1).Pop(&chain)) host().queue(1).UndoPop(&chain);
  }
  Virtqueue& queue(uint32_t index) { return host().queue(index); }
  void Fail(const Error& error) { host().Fail(error); }
  void Change() {
    ++config.first;
    host().ConfigChanged();
  }

  Config config;
  uint64_t active_features = 0;
  int resets = 0;
  std::vector<DescriptorChain> held;

 private:
  static void Echo(Virtqueue& queue, DescriptorChain* chain) {
    std::vector<uint8_t> bytes(chain->readable_size());
    chain->Read(0, bytes);
    queue.Push(chain, static_cast<uint32_t>(chain->Write(0, bytes)));
  }
  void Abandon() {
    for (DescriptorChain& chain : held) chain.Abandon();
    held.clear();
  }
};

}  // namespace cube::devices::virtio::fake

#endif  // CUBE_DEVICES_VIRTIO_TESTING_ECHO_DEVICE_H_
