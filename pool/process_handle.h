#ifndef CUBE_POOL_PROCESS_HANDLE_H_
#define CUBE_POOL_PROCESS_HANDLE_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::pool {

// A process, and no other that has its pid later: a pidfd, and when it was started.
class ProcessHandle {
 public:
  ProcessHandle() = default;
  // An error if there is no such process.
  static Result<ProcessHandle> Open(pid_t pid);

  pid_t pid() const { return pid_; }
  // Field 22 of /proc/PID/stat: of one boot, it and the pid name a process for ever.
  uint64_t start_ticks() const { return start_ticks_; }
  // Readable once the process has ended.
  int fd() const { return fd_.get(); }
  bool valid() const { return fd_.valid(); }
  bool Alive() const;
  // SIGKILL; nothing if it has ended.
  void Kill() const;
  // How it ended, "killed by signal 9" or "exit status 125", where the kernel still knows; else "".
  std::string HowItEnded() const;

 private:
  pid_t pid_ = 0;
  uint64_t start_ticks_ = 0;
  UniqueFd fd_;
};

// Of the running kernel, /proc/sys/kernel/random/boot_id.
std::string BootId();

}  // namespace cube::pool

#endif  // CUBE_POOL_PROCESS_HANDLE_H_
