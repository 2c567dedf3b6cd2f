#include "tests/host_state.h"

#include <sys/types.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "tests/await.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

// The entries of a folder whose names contain `part`.
size_t CountEntries(const std::string& folder, const std::string& part) {
  size_t count = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().find(part) != std::string::npos) ++count;
  }
  return count;
}

// Of those that run `program`.
std::vector<pid_t> Processes(const std::string& program) {
  const fs::path wanted = fs::canonical(program);
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    // What is no process, has ended meanwhile or is another user's has no such link.
    std::error_code none;
    if (fs::read_symlink(entry.path() / "exe", none) != wanted) continue;
    pid_t pid = atoi(entry.path().filename().c_str());
    if (pid > 0) found.push_back(pid);
  }
  return found;
}

}  // namespace

HostState HostState::Count(const std::string& program) {
  HostState state;
  state.descriptors = CountEntries("/proc/self/fd", "");
  state.processes = Processes(program).size();
  state.temporary = CountEntries("/tmp", "cube");
  state.shared = CountEntries("/dev/shm", "cube");
  return state;
}

void HostState::AwaitProcesses(const std::string& program, size_t most) {
  for (;;) {
    std::vector<pid_t> running = Processes(program);
    if (running.size() <= most) return;
    AwaitAnyEnd(running);
  }
}

std::ostream& operator<<(std::ostream& out, const HostState& state) {
  return out << state.descriptors << " descriptors, " << state.processes << " processes, "
             << state.temporary << " entries of /tmp, " << state.shared << " of /dev/shm";
}

}  // namespace cube::testing
