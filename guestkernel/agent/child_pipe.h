#ifndef CUBE_GUESTKERNEL_AGENT_CHILD_PIPE_H_
#define CUBE_GUESTKERNEL_AGENT_CHILD_PIPE_H_

#include "base/unique_fd.h"

namespace cube::agent {

// Makes a pipe to or from a child. Our end does not block; theirs does, as programs expect. False
// and errno if there is none to be had.
bool MakePipe(UniqueFd* ours, UniqueFd* theirs, bool we_write);

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_CHILD_PIPE_H_
