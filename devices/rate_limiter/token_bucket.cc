#include "devices/rate_limiter/token_bucket.h"

#include <algorithm>

namespace cube::devices {
namespace {

constexpr uint64_t kNanoseconds = 1'000'000'000;
__extension__ using Wide = unsigned __int128;

}  // namespace

TokenBucket::TokenBucket(uint64_t per_second, uint64_t burst, uint64_t now)
    : per_second_(std::min(per_second, kMaxTokens)),
      burst_(static_cast<int64_t>(std::min(burst != 0 ? burst : per_second, kMaxTokens))),
      balance_(burst_),
      refilled_at_(now) {}

void TokenBucket::Refill(uint64_t now) {
  if (now <= refilled_at_) return;
  Wide grown = Wide{now - refilled_at_} * per_second_ + remainder_;
  refilled_at_ = now;
  auto missing = static_cast<uint64_t>(burst_ - balance_);
  if (grown / kNanoseconds >= missing) {
    balance_ = burst_;
    remainder_ = 0;
    return;
  }
  balance_ += static_cast<int64_t>(grown / kNanoseconds);
  remainder_ = static_cast<uint64_t>(grown % kNanoseconds);
}

bool TokenBucket::Ready(uint64_t now) {
  if (!limited()) return true;
  Refill(now);
  return balance_ > 0;
}

void TokenBucket::Charge(uint64_t tokens) {
  if (!limited()) return;
  // Not below what one call can take, however many are made.
  constexpr auto kFloor = -static_cast<int64_t>(kMaxTokens);
  balance_ = std::max(balance_ - static_cast<int64_t>(std::min(tokens, kMaxTokens)), kFloor);
}

uint64_t TokenBucket::TimeUntilReady(uint64_t now) {
  if (Ready(now)) return 0;
  Wide missing = Wide{static_cast<uint64_t>(1 - balance_)} * kNanoseconds - remainder_;
  Wide time = (missing + per_second_ - 1) / per_second_;
  return static_cast<uint64_t>(std::min<Wide>(time, INT64_MAX));
}

void TokenBucket::set_balance(int64_t balance, uint64_t now) {
  balance_ = std::clamp(balance, -burst_, burst_);
  refilled_at_ = now;
  remainder_ = 0;
}

}  // namespace cube::devices
