#ifndef CUBE_VMM_CLI_ZYGOTE_COMMAND_H_
#define CUBE_VMM_CLI_ZYGOTE_COMMAND_H_

#include <string>

namespace cube::vmm {

// `cube-vmm zygote TEMPLATE --socket PATH`: opens the template once, and forks a clone of it for
// each request. No exec and no parsing lie between a request and a parked clone.
//
//   {"op":"clone","net":["tap=NAME",...],"vsock":PATH,"shares":["HOSTDIR:TAG",...]}
//     answered, once the clone is parked: {"ok":true,"id":ID,"pid":N,"vsock":PATH,"ms":{...}}
//     A NIC's network is given as for `cube-vmm clone`, "fd=N" being the Nth descriptor (from 0)
//     that came with the request.
//   {"op":"stop"}
//
// A clone has a control socket of its own (sandbox_control.h), which knows
//   {"op":"start","environment":["NAME=VALUE",...],"token":T}  answered when the agent is READY.
// Clones outlive the zygote. Returns the process's exit status.
int ZygoteCommand(const std::string& path, const std::string& socket, const std::string& kvm);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_ZYGOTE_COMMAND_H_
