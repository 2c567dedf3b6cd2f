#ifndef CUBE_VMM_CLI_CLONE_JAIL_H_
#define CUBE_VMM_CLI_CLONE_JAIL_H_

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/cli/control_request.h"

namespace cube::vmm {

// What of a jail is one clone's own. The zygote is jailed already (pool/jail/), with what it needs
// to put its clones into jails within: the right to make namespaces and to become another user of
// its user namespace, which clones lose.
struct CloneJail {
  uint32_t uid = 0;               // user and group, in the zygote's user namespace; 0: no jail
  UniqueFd box;                   // its folder: a mount that is attached nowhere (open_tree(2))
  std::vector<UniqueFd> cgroups;  // cgroup.procs, open for writing, of each cgroup it belongs to

  // "uid", and "cgroups", how many. The last of `descriptors` are taken for it: the folder, then
  // the cgroups.
  static Result<CloneJail> Of(const ControlRequest& request, std::vector<UniqueFd>* descriptors);

  // In a child of the zygote: returns in a child of that, which is the first process of a PID
  // namespace, has mount, IPC and UTS namespaces of its own, its folder at $CUBE_CLONE_HOME, which
  // is its $CUBE_HOME, no capability and no way to get one. The process in between ends.
  Status Enter();

 private:
  Status JoinCgroups();
  Status DropPrivileges() const;
};

// The namespaces that Enter() makes, as unshare(2) has them: no others can be made.
extern const int kCloneNamespaces;

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_CLONE_JAIL_H_
