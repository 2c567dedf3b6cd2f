#ifndef CUBE_POOL_ASYNC_H_
#define CUBE_POOL_ASYNC_H_

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <deque>

namespace cube::pool {

namespace asio = boost::asio;
using std::chrono::milliseconds;

// A coroutine of the daemon's one thread. What it is given by reference has to outlive it, so it is
// given values and shared pointers.
template <typename T>
using Task = asio::awaitable<T>;

// Completion of an operation as (error code, result): no exceptions.
inline constexpr auto kAsTuple = asio::as_tuple(asio::use_awaitable);

// Lets `task` run by itself. An exception out of it, of which only bad_alloc is left, ends the
// process.
void Spawn(asio::io_context& io, Task<void> task);

// Waits; false if the timer was cancelled.
Task<bool> Sleep(asio::steady_timer& timer, milliseconds time);

// Mutual exclusion between coroutines, first come first served.
class AsyncLock {
 public:
  class Guard {
   public:
    explicit Guard(AsyncLock* lock) : lock_(lock) {}
    Guard(Guard&& other) noexcept : lock_(std::exchange(other.lock_, nullptr)) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (lock_ != nullptr) lock_->Release();
    }

   private:
    AsyncLock* lock_;
  };

  explicit AsyncLock(asio::io_context& io) : io_(io) {}
  AsyncLock(const AsyncLock&) = delete;
  AsyncLock& operator=(const AsyncLock&) = delete;

  // The lock outlives the guard.
  Task<Guard> Acquire();
  bool held() const { return held_; }

 private:
  void Release();

  asio::io_context& io_;
  bool held_ = false;
  std::deque<asio::steady_timer*> waiters_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_ASYNC_H_
