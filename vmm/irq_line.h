#ifndef CUBE_VMM_IRQ_LINE_H_
#define CUBE_VMM_IRQ_LINE_H_

#include "base/unique_fd.h"

namespace cube::vmm {

// A device's way to interrupt the guest: one edge for each Trigger(). An eventfd that the VM binds
// to a GSI (KVM_IRQFD) or a test reads. Any thread.
class IrqLine {
 public:
  static Result<IrqLine> Create() {
    CUBE_ASSIGN(UniqueFd fd, NewEventFd());
    return IrqLine(std::move(fd));
  }
  void Trigger() const { SignalEventFd(fd_.get()); }
  int eventfd() const { return fd_.get(); }

 private:
  explicit IrqLine(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_IRQ_LINE_H_
