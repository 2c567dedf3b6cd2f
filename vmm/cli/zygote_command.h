#ifndef CUBE_VMM_CLI_ZYGOTE_COMMAND_H_
#define CUBE_VMM_CLI_ZYGOTE_COMMAND_H_

#include <cstdint>
#include <string>

namespace cube::vmm {

// `cube-vmm zygote`, as given.
struct ZygoteOptions {
  std::string name;        // a template's name or folder
  std::string socket;      // where to listen
  uint64_t pending = 128;  // clones that are being made at once, at most
  bool json = false;
  std::string filters;  // of its clones (filters.h); "" for none
};

// `cube-vmm zygote TEMPLATE --socket PATH`: opens the template once, and forks a clone of it for
// each request. No exec and no parsing lie between a request and a parked clone.
//
//   {"op":"clone","id":ID,"net":["tap=NAME",...],"vsock":PATH,"shares":["HOSTDIR:TAG",...],
//    "uid":N,"cgroups":N,"waits":BOOL}
//     answered, once the clone is parked: {"ok":true,"id":ID,"pid":N,"vsock":PATH,"ms":{...}}
//     A NIC's network is given as for `cube-vmm clone`, "fd=N" being the Nth descriptor (from 0)
//     that came with the request. Without an id it has a new one; with a uid, a jail of its own,
//     for which the last descriptors are (clone_jail.h).
//     One that waits is in its jail first: the last descriptor of all is a socket, on which it says
//     {"ok":true}, waits for a byte, and then says what it is answered with else; the request is
//     answered {"ok":true} before that. It ends with the socket.
//     Refused while as many as it may make at once are being made.
//   {"op":"stop"}
//
// A clone has a control socket of its own (sandbox_control.h), which knows
//   {"op":"start","environment":["NAME=VALUE",...],"token":T,"volumes":[PATH,...]}  answered when
//   the
// agent is READY. The descriptors with it are TAPs for the NICs in their order, then the folder of
// each volume, which the guest is to see at that path, or has seen there when it was frozen.
// Clones outlive the zygote. Returns the process's exit status.
int ZygoteCommand(const ZygoteOptions& options);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_ZYGOTE_COMMAND_H_
