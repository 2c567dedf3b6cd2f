#ifndef CUBE_POOL_SANDBOX_ID_H_
#define CUBE_POOL_SANDBOX_ID_H_

#include <string>

#include "snapshot/manifest.h"
#include "vmm/cli/cube_home.h"

namespace cube::pool {

// A new sandbox's id, as cube-vmm has them.
inline Result<std::string> NewSandboxId() {
  CUBE_ASSIGN(std::string id, snapshot::NewSnapshotId());
  return id.substr(0, vmm::kSandboxIdSize);
}

}  // namespace cube::pool

#endif  // CUBE_POOL_SANDBOX_ID_H_
