#ifndef CUBE_GUESTKERNEL_AGENT_CONSOLE_H_
#define CUBE_GUESTKERNEL_AGENT_CONSOLE_H_

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::agent {

// The guest's serial port. A byte that arrives on it is the host's way to wake the agent; what byte
// it is means nothing. While a child has it as its terminal, the agent does not read it.
class Console {
 public:
  // Opens the terminal at `path` and makes it raw: no echo, no signals, every byte at once.
  static Result<Console> Open(const std::string& path);

  // To be called for each readiness event, which has to be edge-triggered.
  void TakeWakeUp();
  // Makes it a terminal for people, of the given size if that is not 0, and lets go of it.
  Status Lend(uint16_t rows, uint16_t columns);
  // Takes it back from a child that has ended.
  Status Reclaim();

  bool lent() const { return !fd_.valid(); }
  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }

 private:
  Console(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  UniqueFd fd_;
  uint32_t unread_ = 0;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_CONSOLE_H_
