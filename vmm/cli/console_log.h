#ifndef CUBE_VMM_CLI_CONSOLE_LOG_H_
#define CUBE_VMM_CLI_CONSOLE_LOG_H_

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

namespace cube::vmm {

// What the guest's serial console said: the last bytes of it are kept for error messages, and all
// of it can be passed on. Written by vCPU threads, read by the event loop.
class ConsoleLog {
 public:
  static constexpr size_t kKept = 8192;
  static constexpr size_t kPendingLimit = 1 << 20;

  // With `forward`, bytes queue for Take() and `forward` is called when the queue was empty; what
  // the reader is more than kPendingLimit behind with is dropped.
  void SetForward(std::function<void()> forward) { forward_ = std::move(forward); }

  void Append(uint8_t byte);
  // What has come since the last call.
  std::string Take();
  // The message of a kernel panic, without its prefix, or "".
  std::string PanicMessage() const;
  // The last line that is not empty, or "". The kernel's word that it restarts is passed over: what
  // comes before it says why.
  std::string LastLine() const;

 private:
  std::string Kept() const;

  mutable std::mutex mutex_;
  std::string kept_;  // circular once kKept long
  size_t next_ = 0;
  std::string pending_;
  std::function<void()> forward_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_CONSOLE_LOG_H_
