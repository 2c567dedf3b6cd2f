#include "tests/host_state.h"

#include <filesystem>

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

size_t CountProcesses(const std::string& program) {
  const fs::path wanted = fs::canonical(program);
  size_t count = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    // What is no process, has ended meanwhile or is another user's has no such link.
    std::error_code none;
    if (fs::read_symlink(entry.path() / "exe", none) == wanted) ++count;
  }
  return count;
}

}  // namespace

HostState HostState::Count(const std::string& program) {
  HostState state;
  state.descriptors = CountEntries("/proc/self/fd", "");
  state.processes = CountProcesses(program);
  state.temporary = CountEntries("/tmp", "cube");
  state.shared = CountEntries("/dev/shm", "cube");
  return state;
}

std::ostream& operator<<(std::ostream& out, const HostState& state) {
  return out << state.descriptors << " descriptors, " << state.processes << " processes, "
             << state.temporary << " entries of /tmp, " << state.shared << " of /dev/shm";
}

}  // namespace cube::testing
