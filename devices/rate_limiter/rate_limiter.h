#ifndef CUBE_DEVICES_RATE_LIMITER_RATE_LIMITER_H_
#define CUBE_DEVICES_RATE_LIMITER_RATE_LIMITER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/result.h"
#include "base/state_io.h"
#include "devices/rate_limiter/token_bucket.h"
#include "vmm/event_loop.h"

namespace cube::devices {

// What a device, or one direction of it, may do. A rate of 0 is no limit, a burst of 0 what one
// second brings.
struct RateLimits {
  uint64_t bytes_per_second = 0;
  uint64_t bytes_burst = 0;
  uint64_t operations_per_second = 0;
  uint64_t operations_burst = 0;
};

// Holds a device to its limits on bytes and operations. Before it takes work, the device asks
// Ready(); if that says no, it leaves the work where it is and is called when it may go on. Used
// under the device's lock, on the event loop's thread but where stated.
class RateLimiter {
 public:
  // Nanoseconds that never go back.
  using Clock = std::function<uint64_t()>;
  static uint64_t MonotonicClock();

  // `ready` is called on the event loop, without any lock, some time after Ready() or Consume()
  // returned false; it may come when there is nothing to do. Without limits this costs no
  // descriptor. `loop` outlives the limiter.
  static Result<std::unique_ptr<RateLimiter>> Create(const RateLimits& limits, vmm::EventLoop* loop,
                                                     std::function<void()> ready,
                                                     Clock clock = MonotonicClock);
  ~RateLimiter();
  RateLimiter(const RateLimiter&) = delete;
  RateLimiter& operator=(const RateLimiter&) = delete;

  // Whether anything may be done now. If not, the timer is set, and `ready` comes.
  bool Ready();
  // Counts work that was let through. It may be more than what was left: the next waits longer.
  void Charge(uint64_t bytes, uint64_t operations = 1);
  // Both: false if nothing may be done now, and then nothing is counted.
  bool Consume(uint64_t bytes, uint64_t operations = 1) {
    if (!Ready()) return false;
    Charge(bytes, operations);
    return true;
  }
  // Nanoseconds until Ready(); 0 if it is.
  uint64_t TimeUntilReady();
  // How often Ready() said no.
  uint64_t limited_count() const { return limited_count_; }

  // The balances, so that a restored device does not start with a full burst. What is loaded is
  // cut to this limiter's own limits, which are a parameter of the restore.
  void Save(StateWriter* state);
  Status Load(StateReader* state);

 private:
  RateLimiter(const RateLimits& limits, vmm::EventLoop* loop, Clock clock);

  vmm::EventLoop* loop_;
  Clock clock_;
  TokenBucket bytes_;
  TokenBucket operations_;
  std::optional<vmm::Timer> timer_;
  uint64_t limited_count_ = 0;
};

}  // namespace cube::devices

#endif  // CUBE_DEVICES_RATE_LIMITER_RATE_LIMITER_H_
