#ifndef CUBE_VMM_IRQ_LINE_H_
#define CUBE_VMM_IRQ_LINE_H_

#include <cstdint>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::vmm {

// Raises interrupts by itself, where an eventfd would be too slow or not be noticed.
class InterruptController {
 public:
  virtual ~InterruptController() = default;
  // One edge on `gsi`. Any thread.
  virtual void RaiseEdge(uint32_t gsi) = 0;
};

// A device's way to interrupt the guest: one edge for each Trigger(). An eventfd that the VM binds
// to a GSI (KVM_IRQFD), for the kernel's devices too, or a test reads. Any thread.
class IrqLine {
 public:
  static Result<IrqLine> Create() {
    CUBE_ASSIGN(UniqueFd fd, NewEventFd());
    return IrqLine(std::move(fd));
  }
  // From now on Trigger() goes to `controller`, which must outlive this, and not by the eventfd.
  void ConnectTo(InterruptController* controller, uint32_t gsi) {
    controller_ = controller;
    gsi_ = gsi;
  }
  void Trigger() const {
    if (controller_ != nullptr) {
      controller_->RaiseEdge(gsi_);
    } else {
      SignalEventFd(fd_.get());
    }
  }
  int eventfd() const { return fd_.get(); }

 private:
  explicit IrqLine(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
  InterruptController* controller_ = nullptr;
  uint32_t gsi_ = 0;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_IRQ_LINE_H_
