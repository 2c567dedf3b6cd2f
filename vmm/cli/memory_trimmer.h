#ifndef CUBE_VMM_CLI_MEMORY_TRIMMER_H_
#define CUBE_VMM_CLI_MEMORY_TRIMMER_H_

#include <cstdint>
#include <functional>
#include <optional>

#include "base/result.h"
#include "vmm/event_loop.h"
#include "vmm/machine.h"

namespace cube::vmm {

// Gives memory back that ran a guest which has become idle, and has the rest made huge pages. On
// the event loop's thread.
class MemoryTrimmer {
 public:
  // `machine` is asked for the machine when a look is taken; `collapse` tidies some of its memory,
  // for some milliseconds, while it is idle, and says whether there is more to be done.
  MemoryTrimmer(std::function<Machine*()> machine, std::function<bool()> collapse)
      : machine_(std::move(machine)), collapse_(std::move(collapse)) {}

  // Looks from time to time whether the guest is idle.
  Status Watch(EventLoop* loop);
  // Now, idle or not.
  void Trim();

 private:
  void Look();
  void Arm(uint64_t nanoseconds);

  std::function<Machine*()> machine_;
  std::function<bool()> collapse_;
  std::optional<Timer> timer_;
  uint64_t seconds_ = 0;  // until the next look
  uint64_t exits_ = 0;    // at the last one
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_MEMORY_TRIMMER_H_
