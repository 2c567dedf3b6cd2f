#ifndef CUBE_GUESTKERNEL_AGENT_TOOLS_TOOLS_H_
#define CUBE_GUESTKERNEL_AGENT_TOOLS_TOOLS_H_

namespace cube::agent {

// The agent's program run as another one (base/control_abi.h, kAgentProgram): with arguments, which
// say what it is to do. Returns the process's exit status; errors are one line on stderr.
int RunTool(int argc, char** argv);

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_TOOLS_TOOLS_H_
