#ifndef CUBE_VMM_CLI_TERMINAL_H_
#define CUBE_VMM_CLI_TERMINAL_H_

#include <termios.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"

namespace cube::vmm {

// Puts a terminal into raw mode and gives it back as it was.
class RawTerminal {
 public:
  static Result<RawTerminal> Enter(int fd);
  RawTerminal(RawTerminal&& other) noexcept : fd_(other.fd_), saved_(other.saved_) {
    other.fd_ = -1;
  }
  RawTerminal& operator=(RawTerminal&&) = delete;
  ~RawTerminal();

 private:
  RawTerminal(int fd, const termios& saved) : fd_(fd), saved_(saved) {}

  int fd_;
  termios saved_;
};

// The escape key of the console: Ctrl-A x leaves, Ctrl-A Ctrl-A sends one Ctrl-A, any other key
// after Ctrl-A is sent along with it. The two keys may come in reads of their own.
class ConsoleEscape {
 public:
  // What of `typed` goes to the guest; `leave` is set when the escape was typed.
  std::string Filter(std::span<const uint8_t> typed, bool* leave);

 private:
  bool after_prefix_ = false;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_TERMINAL_H_
