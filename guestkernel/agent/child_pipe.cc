#include "guestkernel/agent/child_pipe.h"

#include <fcntl.h>
#include <unistd.h>

namespace cube::agent {

bool MakePipe(UniqueFd* ours, UniqueFd* theirs, bool we_write) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) < 0) return false;
  ours->Reset(fds[we_write ? 1 : 0]);
  theirs->Reset(fds[we_write ? 0 : 1]);
  return fcntl(ours->get(), F_SETFL, O_NONBLOCK) == 0;
}

}  // namespace cube::agent
