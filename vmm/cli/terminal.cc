#include "vmm/cli/terminal.h"

namespace cube::vmm {

Result<RawTerminal> RawTerminal::Enter(int fd) {
  termios saved;
  if (tcgetattr(fd, &saved) < 0) return ErrnoError("tcgetattr");
  termios raw = saved;
  cfmakeraw(&raw);
  if (tcsetattr(fd, TCSANOW, &raw) < 0) return ErrnoError("tcsetattr");
  return RawTerminal(fd, saved);
}

RawTerminal::~RawTerminal() {
  if (fd_ >= 0) tcsetattr(fd_, TCSANOW, &saved_);
}

std::string ConsoleEscape::Filter(std::span<const uint8_t> typed, bool* leave) {
  constexpr uint8_t kPrefix = 1;  // Ctrl-A
  std::string out;
  for (uint8_t byte : typed) {
    if (!after_prefix_ && byte == kPrefix) {
      after_prefix_ = true;
      continue;
    }
    if (after_prefix_) {
      after_prefix_ = false;
      if (byte == 'x' || byte == 'X') {
        *leave = true;
        return out;
      }
      if (byte != kPrefix) out += static_cast<char>(kPrefix);
    }
    out += static_cast<char>(byte);
  }
  return out;
}

}  // namespace cube::vmm
