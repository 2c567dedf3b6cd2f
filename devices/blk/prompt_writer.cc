#include "devices/blk/prompt_writer.h"

#include <sys/uio.h>
#include <time.h>

#include <cerrno>

namespace cube::devices::blk {
namespace {

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

void PromptWriter::Took(int64_t start, int64_t end) {
  if (end - start > kSlow) resume_ = end + kRest * (end - start);
}

bool PromptWriter::Try(IoOperation* operation) {
  if (operation->kind != IoOperation::Kind::kWrite || operation->size > kLargest) return false;
  if (operation->fd != fd_) {
    fd_ = operation->fd;
    file_system_ = FileSystem::kUnknown;
  }
  if (file_system_ == FileSystem::kNeedNotWait) return false;
  int64_t start = Now();
  if (!Allowed(start)) return false;
  auto write = [operation](int flags) -> int64_t {
    ssize_t n = pwritev2(operation->fd, operation->buffers.data(),
                         static_cast<int>(operation->buffers.size()),
                         static_cast<off_t>(operation->offset), flags);
    return n < 0 ? -errno : n;
  };
  if (file_system_ == FileSystem::kUnknown) {
    int64_t result = write(RWF_NOWAIT);
    if (result == -EAGAIN) return false;
    file_system_ = result == -EOPNOTSUPP ? FileSystem::kMayWait : FileSystem::kNeedNotWait;
    if (result != -EOPNOTSUPP) {
      operation->result = result;
      return true;
    }
  }
  operation->result = write(0);
  Took(start, Now());
  return true;
}

}  // namespace cube::devices::blk
