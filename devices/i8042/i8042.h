#ifndef CUBE_DEVICES_I8042_I8042_H_
#define CUBE_DEVICES_I8042_I8042_H_

#include <cstdint>
#include <functional>
#include <span>

#include "vmm/bus.h"

namespace cube::devices {

// What is left of a PC's keyboard controller: the command that pulses the reset line, by which
// Linux restarts (reboot=k, and the fallback of other methods), and a status that says "idle", so
// that nobody waits for a keyboard.
class I8042 : public vmm::BusDevice {
 public:
  static constexpr uint64_t kFirstPort = 0x60;
  static constexpr uint64_t kSize = 5;

  // `reset` is called on the vCPU's thread.
  explicit I8042(std::function<void()> reset) : reset_(std::move(reset)) {}

  void Read(uint64_t, std::span<uint8_t> data) override {
    for (uint8_t& byte : data) byte = 0;
  }
  void Write(uint64_t offset, std::span<const uint8_t> data) override {
    if (offset == kCommandOffset && data[0] == kPulseReset) reset_();
  }

 private:
  static constexpr uint64_t kCommandOffset = 4;
  static constexpr uint8_t kPulseReset = 0xfe;

  std::function<void()> reset_;
};

}  // namespace cube::devices

#endif  // CUBE_DEVICES_I8042_I8042_H_
