#include "pool/async.h"

#include <boost/asio/co_spawn.hpp>
#include <exception>

namespace cube::pool {

void Spawn(asio::io_context& io, Task<void> task) {
  asio::co_spawn(io, std::move(task), [](std::exception_ptr failed) {
    if (failed) std::terminate();
  });
}

Task<bool> Sleep(asio::steady_timer& timer, milliseconds time) {
  timer.expires_after(time);
  auto [failed] = co_await timer.async_wait(kAsTuple);
  co_return !failed;
}

Task<AsyncLock::Guard> AsyncLock::Acquire() {
  if (held_) {
    // Its turn comes when the timer, which never fires, is cancelled; the lock stays held for it.
    asio::steady_timer turn(io_, asio::steady_timer::time_point::max());
    waiters_.push_back(&turn);
    co_await turn.async_wait(kAsTuple);
  }
  held_ = true;
  co_return Guard(this);
}

void AsyncLock::Release() {
  if (waiters_.empty()) {
    held_ = false;
    return;
  }
  asio::steady_timer* next = waiters_.front();
  waiters_.pop_front();
  next->cancel();
}

}  // namespace cube::pool
