#ifndef CUBE_GUESTKERNEL_AGENT_MOUNTS_H_
#define CUBE_GUESTKERNEL_AGENT_MOUNTS_H_

#include "base/result.h"

namespace cube::agent {

// Mounts the device file system on /dev, without which the agent reaches neither the console nor
// the mailbox. Fine if it is mounted already.
Status MountDev();

// Mounts /proc alone, before the rest.
Status MountProc();

// Mounts memory on /tmp, for a root that cannot be written.
Status MountTmp();

// Mounts the other file systems that programs expect on a server, and makes the links of /dev that
// the kernel does not. What cannot be mounted is logged: a sandbox without it still runs.
void MountRest();

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_MOUNTS_H_
