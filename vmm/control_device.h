#ifndef CUBE_VMM_CONTROL_DEVICE_H_
#define CUBE_VMM_CONTROL_DEVICE_H_

#include <cstdint>
#include <functional>
#include <span>

#include "base/control_abi.h"
#include "vmm/bus.h"

namespace cube::vmm {

// The doorbell page (base/control_abi.h). Its stores arrive straight from guest user mode.
class ControlDevice : public BusDevice {
 public:
  struct Callbacks {
    // A command the contract names. On the vCPU's thread, which does not run on meanwhile.
    std::function<void(abi::Command command, uint32_t argument)> command;
    // A ring of the mailbox has changed.
    std::function<void()> notify;
  };

  explicit ControlDevice(Callbacks callbacks) : callbacks_(std::move(callbacks)) {}

  // Writes the header that the agent checks before it trusts the mailbox.
  static void InitMailbox(std::span<uint8_t> mailbox);

  void Read(uint64_t offset, std::span<uint8_t> data) override;
  // What the contract does not name is ignored: the guest can only harm itself.
  void Write(uint64_t offset, std::span<const uint8_t> data) override;

 private:
  Callbacks callbacks_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CONTROL_DEVICE_H_
