#ifndef CUBE_GUESTKERNEL_AGENT_TOOLS_CLEAN_DISK_H_
#define CUBE_GUESTKERNEL_AGENT_TOOLS_CLEAN_DISK_H_

#include "base/result.h"

namespace cube::agent {

// Ends every process but this one and PID 1, and has all that was written to the root's file system on
// its disk, with nothing left in the journal. Whoever writes to it after that waits for ever: for a
// machine that ends now and whose disk becomes a layer.
Status CleanDisk();

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_TOOLS_CLEAN_DISK_H_
