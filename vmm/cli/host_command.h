#ifndef CUBE_VMM_CLI_HOST_COMMAND_H_
#define CUBE_VMM_CLI_HOST_COMMAND_H_

namespace cube::vmm {

// `cube-vmm host`: prints what this host can do and a verdict. The exit status is 0 if VMs can run
// here, else 125.
int HostCommand(bool json);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_HOST_COMMAND_H_
