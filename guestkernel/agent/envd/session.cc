#include "guestkernel/agent/envd/session.h"

#include <dirent.h>
#include <signal.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
#include <string>

#include "base/byte_io.h"

namespace cube::agent::envd {
namespace {

// Processes may be made while others are looked at.
constexpr int kMaxRounds = 16;
constexpr size_t kMaxStat = 4096;

// The session of process `pid`, -1 if there is none. See proc(5): the name, which is the process's
// own affair, is in parentheses.
pid_t SessionOf(pid_t pid) {
  Result<std::string> text = ReadSmallFile("/proc/" + std::to_string(pid) + "/stat", kMaxStat);
  if (!text.ok()) return -1;
  const size_t name_end = text->rfind(')');
  if (name_end == std::string::npos) return -1;
  char state = 0;
  int parent = 0, group = 0, session = -1;
  if (sscanf(text->c_str() + name_end + 1, " %c %d %d %d", &state, &parent, &group, &session) < 4) {
    return -1;
  }
  return session;
}

// True if it has killed one that is not in `killed` yet.
bool KillOnce(pid_t leader, std::set<pid_t>* killed) {
  std::unique_ptr<DIR, int (*)(DIR*)> processes(opendir("/proc"), closedir);
  if (processes == nullptr) return false;
  bool found = false;
  while (const dirent* entry = readdir(processes.get())) {
    const char* end = entry->d_name + strlen(entry->d_name);
    pid_t pid = 0;
    auto [parsed, error] = std::from_chars(entry->d_name, end, pid);
    if (error != std::errc() || parsed != end || killed->contains(pid)) continue;
    if (SessionOf(pid) != leader) continue;
    kill(pid, SIGKILL);
    killed->insert(pid);
    found = true;
  }
  return found;
}

}  // namespace

void KillSession(pid_t leader, bool reaped) {
  // Its number is not given to another process before its session has ended.
  if (reaped && kill(leader, 0) == 0) return;
  // Most have one group, which the kernel kills in one go, also if it forks as fast as it can.
  kill(-leader, SIGKILL);
  std::set<pid_t> killed;
  for (int i = 0; i < kMaxRounds && KillOnce(leader, &killed); ++i) {
  }
}

}  // namespace cube::agent::envd
