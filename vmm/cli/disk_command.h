#ifndef CUBE_VMM_CLI_DISK_COMMAND_H_
#define CUBE_VMM_CLI_DISK_COMMAND_H_

#include <string>
#include <vector>

namespace cube::vmm {

// `cube-vmm disk flatten BASE [LAYER...] OVERLAY OUT`: what a disk of these files holds, as a raw
// image. Returns the process's exit status; says what went wrong on stderr.
int FlattenCommand(const std::vector<std::string>& files, bool json);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_DISK_COMMAND_H_
