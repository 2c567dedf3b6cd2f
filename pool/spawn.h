#ifndef CUBE_POOL_SPAWN_H_
#define CUBE_POOL_SPAWN_H_

#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "pool/process_handle.h"

namespace cube::pool {

struct Spawned {
  ProcessHandle process;
  UniqueFd output;  // the end of a pipe to which its stdout and stderr go
  UniqueFd input;   // the end of a pipe that it reads
};

// Starts a program in a session of its own, with no other descriptors and no signal blocked or
// ignored. `environment`: NAME=VALUE, in place of those of the daemon that have the same name.
Result<Spawned> SpawnProcess(const std::vector<std::string>& arguments,
                             const std::vector<std::string>& environment);

}  // namespace cube::pool

#endif  // CUBE_POOL_SPAWN_H_
