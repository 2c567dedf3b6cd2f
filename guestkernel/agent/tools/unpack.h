#ifndef CUBE_GUESTKERNEL_AGENT_TOOLS_UNPACK_H_
#define CUBE_GUESTKERNEL_AGENT_TOOLS_UNPACK_H_

#include "base/result.h"

namespace cube::agent {

// Makes the files of the stream (base/file_stream.h) that `fd`, a pipe, brings. Symbolic links in
// the paths are followed, as a program in the guest would. The error names the file. What came
// before it stays.
Status Unpack(int fd);

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_TOOLS_UNPACK_H_
