#ifndef CUBE_VMM_CLI_TEMPLATE_PRUNE_H_
#define CUBE_VMM_CLI_TEMPLATE_PRUNE_H_

#include <cstdint>

#include "base/result.h"

namespace cube::vmm {

struct Pruned {
  uint64_t files = 0;
  uint64_t bytes = 0;  // allocated
};

// Deletes the disks and layers of CubeHome()/builds that no snapshot in a folder of CubeHome() names;
// snapshots that are kept elsewhere are not known. Refuses while a template is being built, and if a
// manifest cannot be read.
Result<Pruned> PruneBuilds();

// `cube-vmm template prune`: the process's exit status.
int TemplatePruneCommand(bool json);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_TEMPLATE_PRUNE_H_
