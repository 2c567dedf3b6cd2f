#ifndef CUBE_GUESTKERNEL_AGENT_SHARES_H_
#define CUBE_GUESTKERNEL_AGENT_SHARES_H_

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace cube::agent {

// A directory of the host's, by the tag of its file system device.
struct Share {
  std::string tag;
  bool read_only = false;
};

// The shares that a kernel command line names by words `cube.share=TAG` and `cube.share=TAG:ro`.
// Words of another form are left out: a tag is a folder's name (A-Z, a-z, 0-9, '.', '_', '-').
std::vector<Share> SharesOf(std::string_view command_line);

// Mounts each share of /proc/cmdline at /mnt/TAG. What cannot be mounted is logged.
void MountShares();

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_SHARES_H_
