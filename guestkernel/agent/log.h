#ifndef CUBE_GUESTKERNEL_AGENT_LOG_H_
#define CUBE_GUESTKERNEL_AGENT_LOG_H_

#include <string>

namespace cube::agent {

// Writes a line to stderr, which for PID 1 is the console. For what should never happen: where
// ring 0 is emulated, each byte on the serial line is an exit to the host.
void Log(const std::string& line);

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_LOG_H_
