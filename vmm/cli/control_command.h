#ifndef CUBE_VMM_CLI_CONTROL_COMMAND_H_
#define CUBE_VMM_CLI_CONTROL_COMMAND_H_

#include <cstdint>
#include <string>

namespace cube::vmm {

// The commands of `cube-vmm` that ask a running sandbox for something: sends `request`, a JSON
// object, to its control socket and waits for the answer, which is printed. `sandbox` is an id, or
// the path of a socket. Returns the process's exit status.
int ControlCommand(const std::string& sandbox, const std::string& request, bool json);

std::string SnapshotRequest(const std::string& path, bool diff, bool durable);
std::string RollbackRequest(const std::string& path);
std::string ForkRequest(uint64_t count);
// {"op":OP}
std::string PlainRequest(const char* op);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_CONTROL_COMMAND_H_
