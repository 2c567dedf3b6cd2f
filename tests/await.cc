#include "tests/await.h"

#include <poll.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "base/unique_fd.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void Fail(const std::string& what) {
  perror(what.c_str());
  abort();
}

}  // namespace

void AwaitEnd(pid_t pid) { AwaitAnyEnd({pid}); }

void AwaitAnyEnd(const std::vector<pid_t>& pids) {
  std::vector<UniqueFd> processes;
  std::vector<pollfd> ends;
  for (pid_t pid : pids) {
    UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    if (!process.valid() && errno == ESRCH) return;
    if (!process.valid()) Fail("pidfd_open");
    ends.push_back({process.get(), POLLIN, 0});
    processes.push_back(std::move(process));
  }
  while (poll(ends.data(), ends.size(), -1) < 0) {
    if (errno != EINTR) Fail("poll");
  }
}

void AwaitChange(const std::string& folder, const std::function<bool()>& done) {
  UniqueFd changes(inotify_init1(IN_CLOEXEC));
  if (!changes.valid()) Fail("inotify_init1");
  constexpr uint32_t kAll =
      IN_CREATE | IN_DELETE | IN_MOVE | IN_MODIFY | IN_CLOSE_WRITE | IN_DELETE_SELF | IN_MOVE_SELF;
  if (inotify_add_watch(changes.get(), folder.c_str(), kAll) < 0) Fail(folder);
  while (!done()) {
    alignas(inotify_event) char events[4096];
    if (read(changes.get(), events, sizeof events) < 0 && errno != EINTR) Fail("inotify");
  }
}

void AwaitGone(const std::string& path) {
  AwaitChange(fs::path(path).parent_path(), [&] { return !fs::exists(fs::symlink_status(path)); });
}

}  // namespace cube::testing
