#include "vmm/cli/console_log.h"

#include <utility>

namespace cube::vmm {

void ConsoleLog::Append(uint8_t byte) {
  bool was_empty = false;
  {
    std::lock_guard lock(mutex_);
    if (kept_.size() < kKept) {
      kept_.push_back(static_cast<char>(byte));
    } else {
      kept_[next_] = static_cast<char>(byte);
      next_ = (next_ + 1) % kKept;
    }
    if (forward_ && pending_.size() < kPendingLimit) {
      was_empty = pending_.empty();
      pending_.push_back(static_cast<char>(byte));
    }
  }
  if (was_empty) forward_();
}

std::string ConsoleLog::Take() {
  std::lock_guard lock(mutex_);
  return std::exchange(pending_, {});
}

std::string ConsoleLog::Kept() const {
  std::lock_guard lock(mutex_);
  return kept_.substr(next_) + kept_.substr(0, next_);
}

std::string ConsoleLog::PanicMessage() const {
  static constexpr char kPrefix[] = "Kernel panic - not syncing: ";
  std::string text = Kept();
  size_t at = text.find(kPrefix);
  if (at == std::string::npos) return "";
  at += sizeof kPrefix - 1;
  return text.substr(at, text.find_first_of("\r\n", at) - at);
}

std::string ConsoleLog::LastLine() const {
  static constexpr char kRestart[] = "] reboot: Restarting system";
  std::string text = Kept();
  if (size_t at = text.rfind(kRestart); at != std::string::npos) {
    size_t start = text.find_last_of("\r\n", at);
    text.resize(start == std::string::npos ? 0 : start);
  }
  size_t end = text.find_last_not_of("\r\n ");
  if (end == std::string::npos) return "";
  size_t start = text.find_last_of("\r\n", end);
  start = start == std::string::npos ? 0 : start + 1;
  return text.substr(start, end + 1 - start);
}

}  // namespace cube::vmm
