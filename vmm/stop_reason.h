#ifndef CUBE_VMM_STOP_REASON_H_
#define CUBE_VMM_STOP_REASON_H_

#include <string>

namespace cube::vmm {

// Why a VM stopped running. The first reason wins.
struct StopReason {
  enum class Kind {
    kGuestExit,    // the agent's EXIT command; `status` is its argument
    kReset,        // the guest asked for a reset: it rebooted or panicked
    kTripleFault,  // the guest had no handler for its faults left
    kError,        // this VMM or KVM cannot go on; `text` says why, `detail` may hold a dump
    kRequest,      // the VMM's own user asked (a signal, a time limit)
  };
  Kind kind = Kind::kError;
  int status = 0;
  std::string text;
  std::string detail;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_STOP_REASON_H_
