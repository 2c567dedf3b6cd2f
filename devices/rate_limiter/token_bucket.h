#ifndef CUBE_DEVICES_RATE_LIMITER_TOKEN_BUCKET_H_
#define CUBE_DEVICES_RATE_LIMITER_TOKEN_BUCKET_H_

#include <cstdint>

namespace cube::devices {

// A balance of tokens that grows with time up to a burst. Work is let through while the balance is
// above zero and may leave it below: so work larger than the burst passes, how long to wait does
// not depend on what waits, and the rate is kept over time.
class TokenBucket {
 public:
  static constexpr uint64_t kMaxTokens = uint64_t{1} << 50;

  // No limit.
  TokenBucket() = default;
  // `per_second` tokens a second, 0 for no limit; at most `burst` at once, 0 for those of one
  // second. Both are cut to kMaxTokens. Full at `now`, nanoseconds of a clock that never goes back.
  TokenBucket(uint64_t per_second, uint64_t burst, uint64_t now);

  bool limited() const { return per_second_ != 0; }
  // Takes in what has come by `now`, then says whether there is something.
  bool Ready(uint64_t now);
  // Takes `tokens` out, more than there are if need be.
  void Charge(uint64_t tokens);
  // Nanoseconds from `now` until Ready(); 0 if it is.
  uint64_t TimeUntilReady(uint64_t now);

  // The balance, for saved state; what is set is cut to the burst and to a debt of as much.
  int64_t balance() const { return balance_; }
  void set_balance(int64_t balance, uint64_t now);

 private:
  void Refill(uint64_t now);

  uint64_t per_second_ = 0;
  int64_t burst_ = 0;
  int64_t balance_ = 0;
  uint64_t refilled_at_ = 0;
  uint64_t remainder_ = 0;  // of the last refill, in 1e-9 tokens
};

}  // namespace cube::devices

#endif  // CUBE_DEVICES_RATE_LIMITER_TOKEN_BUCKET_H_
