#include "vmm/cli/sandbox_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "base/byte_io.h"
#include "base/unique_fd.h"

namespace cube::vmm {

SandboxLog::~SandboxLog() {
  if (!is_open()) return;
  fflush(stdout);
  struct stat info;
  if (fstat(STDOUT_FILENO, &info) == 0 && info.st_size == 0) unlink(path_.c_str());
}

Status SandboxLog::Open(const std::string& path) {
  path_ = path;
  return Begin();
}

Status SandboxLog::Begin() {
  CUBE_ASSIGN(UniqueFd file, OpenFile(path_, O_WRONLY | O_CREAT | O_APPEND, 0600));
  for (int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    if (dup2(file.get(), fd) < 0) return ErrnoError("dup2");
  }
  struct stat info;
  size_ = fstat(file.get(), &info) == 0 ? static_cast<size_t>(info.st_size) : 0;
  return OkStatus();
}

void SandboxLog::Write(std::span<const uint8_t> bytes) {
  if (size_ + bytes.size() > kLimit) {
    // Without another file the guest's output ends here: the limit holds all the same.
    if (rename(path_.c_str(), (path_ + ".1").c_str()) < 0 || !Begin().ok()) return;
  }
  size_ += bytes.size();
  (void)WriteAll(STDOUT_FILENO, bytes, "the log");
}

}  // namespace cube::vmm
