#ifndef CUBE_GUESTKERNEL_AGENT_ROOT_DISK_H_
#define CUBE_GUESTKERNEL_AGENT_ROOT_DISK_H_

#include "base/result.h"

namespace cube::agent {

// Mounts /proc and, if the kernel's command line has the word `cube.root` (root_option.h), mounts
// that disk, moves /dev and /proc to it, makes it the root of this process and of all that come
// after, and gives back the memory of the initramfs's files, this program's own among them.
//
// The disk has to be there: virtio's block driver finds its disks before the kernel starts init.
// /dev has to be mounted. For PID 1 in the initramfs, before other programs run.
Status EnterRoot();

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_ROOT_DISK_H_
