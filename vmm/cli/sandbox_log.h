#ifndef CUBE_VMM_CLI_SANDBOX_LOG_H_
#define CUBE_VMM_CLI_SANDBOX_LOG_H_

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace cube::vmm {

// The log of a sandbox whose process has no caller to write to: it takes the place of stdout and
// stderr, so that it has what the VMM says and what a command of the guest prints. Once kLimit
// bytes are in it, it becomes PATH.1 (the one before is gone) and another begins.
class SandboxLog {
 public:
  static constexpr uint64_t kLimit = 1 << 20;

  SandboxLog() = default;
  SandboxLog(const SandboxLog&) = delete;
  SandboxLog& operator=(const SandboxLog&) = delete;
  // A log in which nothing stands is deleted.
  ~SandboxLog();

  Status Open(const std::string& path);
  bool is_open() const { return !path_.empty(); }
  // Output of the guest. What the disk has no room for is lost: the guest does not wait for it.
  void Write(std::span<const uint8_t> bytes);

 private:
  Status Begin();

  std::string path_;
  uint64_t size_ = 0;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_SANDBOX_LOG_H_
