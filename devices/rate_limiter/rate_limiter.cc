#include "devices/rate_limiter/rate_limiter.h"

#include <sys/epoll.h>
#include <time.h>

#include <algorithm>
#include <utility>

namespace cube::devices {
namespace {

// Tokens come one by one; waiting for the next one alone would make a timer of each operation.
constexpr uint64_t kShortestWait = 1'000'000;

struct SavedLimiter {
  int64_t bytes;
  int64_t operations;
};

}  // namespace

uint64_t RateLimiter::MonotonicClock() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

RateLimiter::RateLimiter(const RateLimits& limits, vmm::EventLoop* loop, Clock clock)
    : loop_(loop),
      clock_(std::move(clock)),
      bytes_(limits.bytes_per_second, limits.bytes_burst, clock_()),
      operations_(limits.operations_per_second, limits.operations_burst, clock_()) {}

Result<std::unique_ptr<RateLimiter>> RateLimiter::Create(const RateLimits& limits,
                                                         vmm::EventLoop* loop,
                                                         std::function<void()> ready, Clock clock) {
  std::unique_ptr<RateLimiter> limiter(new RateLimiter(limits, loop, std::move(clock)));
  if (limiter->bytes_.limited() || limiter->operations_.limited()) {
    CUBE_ASSIGN(limiter->timer_, vmm::Timer::Create());
    CUBE_TRY(loop->Add(limiter->timer_->fd(), EPOLLIN,
                       [raw = limiter.get(), ready = std::move(ready)](uint32_t) {
                         raw->timer_->Acknowledge();
                         ready();
                       }));
  }
  return limiter;
}

RateLimiter::~RateLimiter() {
  if (timer_) loop_->Remove(timer_->fd());
}

uint64_t RateLimiter::TimeUntilReady() {
  if (!timer_) return 0;
  uint64_t now = clock_();
  return std::max(bytes_.TimeUntilReady(now), operations_.TimeUntilReady(now));
}

bool RateLimiter::Ready() {
  uint64_t time = TimeUntilReady();
  if (time == 0) return true;
  ++limited_count_;
  // It cannot fail: the descriptor is a timer's and the time is in range.
  (void)timer_->Set(std::max(time, kShortestWait));
  return false;
}

void RateLimiter::Charge(uint64_t bytes, uint64_t operations) {
  bytes_.Charge(bytes);
  operations_.Charge(operations);
}

void RateLimiter::Save(StateWriter* state) {
  uint64_t now = clock_();
  bytes_.Ready(now);
  operations_.Ready(now);
  state->Put(SavedLimiter{bytes_.balance(), operations_.balance()});
}

Status RateLimiter::Load(StateReader* state) {
  SavedLimiter saved;
  CUBE_TRY(state->Get(&saved));
  uint64_t now = clock_();
  bytes_.set_balance(saved.bytes, now);
  operations_.set_balance(saved.operations, now);
  return OkStatus();
}

}  // namespace cube::devices
