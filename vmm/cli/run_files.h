#ifndef CUBE_VMM_CLI_RUN_FILES_H_
#define CUBE_VMM_CLI_RUN_FILES_H_

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::vmm {

// Says that the process that will have files of the name `id` in the folder of running sandboxes
// lives, for as long as the descriptor is open there or in a child of a fork. Before the first of
// those files is made. It is a lock of one byte, at a place told by the id, of a file that all
// share (fcntl(2), "Open file description locks"), so it ends with the process, however that ends.
Result<UniqueFd> ClaimId(const std::string& id);

// Deletes what sandboxes that were killed have left in the folder of running ones: sockets, and
// logs in which nothing stands. A log that says something stays: it may say why its sandbox died.
// Nothing of a process that lives is touched, nor what has another name than a sandbox's files
// have.
void RemoveFilesOfDead();

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_RUN_FILES_H_
