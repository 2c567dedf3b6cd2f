#include "guestkernel/agent/tools/clean_disk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/unique_fd.h"

namespace cube::agent {

Status CleanDisk() {
  kill(-1, SIGKILL);
  CUBE_ASSIGN(UniqueFd root, OpenFile("/", O_RDONLY | O_DIRECTORY));
  // Also with files open for writing, as PID 1 has one: ext4 writes all, empties its journal, and marks
  // itself clean.
  if (ioctl(root.get(), FIFREEZE, 0) < 0) {
    return ErrnoError("the root's file system cannot be frozen");
  }
  return OkStatus();
}

}  // namespace cube::agent
