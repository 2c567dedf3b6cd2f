#ifndef CUBE_VMM_CLI_MEMORY_TRIMMER_H_
#define CUBE_VMM_CLI_MEMORY_TRIMMER_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "base/result.h"
#include "vmm/event_loop.h"
#include "vmm/machine.h"

namespace cube::vmm {

// Gives memory back that ran a guest which has become idle. On the event loop's thread.
class MemoryTrimmer {
 public:
  // `machine` is asked for the machine when a look is taken.
  explicit MemoryTrimmer(std::function<Machine*()> machine) : machine_(std::move(machine)) {}

  // Looks from time to time whether the guest is idle.
  Status Watch(EventLoop* loop);
  // Now, idle or not.
  void Trim();

 private:
  void Look();
  void Arm();

  std::function<Machine*()> machine_;
  std::optional<Timer> timer_;
  uint64_t seconds_ = 0;  // until the next look
  uint64_t exits_ = 0;    // at the last one
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_MEMORY_TRIMMER_H_
