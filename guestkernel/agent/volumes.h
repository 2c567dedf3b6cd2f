#ifndef CUBE_GUESTKERNEL_AGENT_VOLUMES_H_
#define CUBE_GUESTKERNEL_AGENT_VOLUMES_H_

#include <cstdint>
#include <string>
#include <vector>

namespace cube::agent {

// The volumes that this machine has mounted, by the identities it was given. Clones of it have them
// as well, and so what they are told of again is there already.
class Volumes {
 public:
  // Mounts those of `paths` (base/control_abi.h) that are not there yet, each once the file system
  // answers; what is missing of a path is made. What kReady is to say: 0, or which could not be
  // mounted and why, which is also logged. After that nothing more is mounted.
  uint32_t Mount(const std::vector<std::string>& paths);

 private:
  std::vector<std::string> mounted_;  // where, by number
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_VOLUMES_H_
