#ifndef CUBE_VMM_CLI_MACHINE_INBOX_H_
#define CUBE_VMM_CLI_MACHINE_INBOX_H_

#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>

#include "base/control_abi.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/event_loop.h"
#include "vmm/stop_reason.h"

namespace cube::vmm {

// What a machine has to say on its vCPUs' threads, handed over to the event loop's.
class MachineInbox {
 public:
  // On the event loop's thread, in this order.
  struct Reader {
    std::function<void(abi::Command, uint32_t argument)> command;
    std::function<void()> notified;  // by the guest, or there was a command
    std::function<void(const StopReason&)> stopped;
  };

  Status Open(EventLoop* loop, Reader reader);

  // Any thread.
  void PostCommand(abi::Command command, uint32_t argument);
  void PostNotification();
  void PostStop(StopReason reason);

 private:
  void OnPosted();

  Reader reader_;
  UniqueFd event_;
  std::mutex mutex_;
  std::deque<std::pair<abi::Command, uint32_t>> commands_;
  std::optional<StopReason> stop_;
  bool notified_ = false;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_MACHINE_INBOX_H_
