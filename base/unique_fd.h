#ifndef CUBE_BASE_UNIQUE_FD_H_
#define CUBE_BASE_UNIQUE_FD_H_

#include <string>
#include <utility>

#include "base/result.h"

namespace cube {

// Owns a file descriptor; closes it when it goes.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  void Reset(int fd = -1);
  // Gives the descriptor up to the caller, who closes it.
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

// open(2) with O_CLOEXEC; the error names the path.
Result<UniqueFd> OpenFile(const std::string& path, int flags, unsigned mode = 0600);

// A non-blocking, close-on-exec eventfd with count 0.
Result<UniqueFd> NewEventFd();

// Adds one to an eventfd. An eventfd counter cannot overflow from here, so nothing can fail that
// the caller could act on.
void SignalEventFd(int fd);

// Takes what an eventfd has counted; 0 if nothing.
unsigned long long DrainEventFd(int fd);

}  // namespace cube

#endif  // CUBE_BASE_UNIQUE_FD_H_
