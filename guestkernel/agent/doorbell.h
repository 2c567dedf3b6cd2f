#ifndef CUBE_GUESTKERNEL_AGENT_DOORBELL_H_
#define CUBE_GUESTKERNEL_AGENT_DOORBELL_H_

#include <cstdint>

#include "base/control_abi.h"
#include "base/mapping.h"
#include "base/result.h"

namespace cube::agent {

// How the agent gets the VMM's attention (base/control_abi.h). An interface, so that a test can
// stand in for the VMM.
class Doorbell {
 public:
  virtual ~Doorbell() = default;

  // Gives the VMM a command. Returns when the VMM has carried it out; for kExit it never does.
  virtual void Send(abi::Command command, uint32_t argument) = 0;
  // Says that a ring of the mailbox has changed.
  virtual void Notify() = 0;
};

// The doorbell page of the control device. Each call is one store, and one exit to the VMM.
class DeviceDoorbell final : public Doorbell {
 public:
  // Maps the page; `dev_mem` is /dev/mem.
  static Result<DeviceDoorbell> Map(int dev_mem);

  void Send(abi::Command command, uint32_t argument) override;
  void Notify() override;

 private:
  explicit DeviceDoorbell(Mapping page) : page_(std::move(page)) {}

  Mapping page_;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_DOORBELL_H_
