#ifndef CUBE_POOL_JAIL_ENTER_H_
#define CUBE_POOL_JAIL_ENTER_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::pool {

// What a jailed process sees, is, and may do; words of `cube-jail` (main.cc).
struct JailPlan {
  std::string root;                  // a folder to mount its root at
  std::vector<std::string> visible;  // folders and files, read-only, at the places they are at
  std::string box, box_place;        // its own folder, and where it sees it
  std::string clone_place;           // where its clones will see theirs; "" if it makes none
  std::vector<std::string> cgroups;  // folders of the cgroups that it joins
  std::vector<std::string> reaper_cgroups;  // and the first process of its PID namespace
  uint32_t first_uid = 0, uids = 1;  // of the host (and gids), which it has in its user namespace
  uint32_t first_inside = 0;         // what the first is there
  bool is_zygote = false;            // may make its children's namespaces and change its user
  std::string program_filter;        // files of seccomp programs: of the process itself,
  std::string machine_filter, vcpu_filter;  // and what it finds open as 3 and 4
  std::vector<std::string> environment;     // all of it
  std::string program;
  std::vector<std::string> arguments;  // from the first, its name
};

// Descriptors of the seccomp programs in a jailed process.
inline constexpr int kMachineFilterFd = 3;
inline constexpr int kVcpuFilterFd = 4;

// The two ends of the way into a user namespace: who enters says that it is in one, and waits until
// who is outside has mapped its users.
struct JailGate {
  static Result<JailGate> Make();
  UniqueFd inside, outside;
};

// The calling process joins each of them.
Status JoinCgroups(const std::vector<std::string>& folders);

// In a process that is to be jailed, a root of the host's, of a PID namespace: enters the jail and
// becomes the program. Returns only if it could not.
Error EnterJail(const JailPlan& plan, JailGate gate);

// On the other side: waits until that process has its user namespace, and maps its users. Its pid.
Result<pid_t> MapUsers(const JailPlan& plan, JailGate* gate);
// Then lets it go on; if this process ends before, it ends as well.
Status OpenGate(const JailGate& gate);

}  // namespace cube::pool

#endif  // CUBE_POOL_JAIL_ENTER_H_
