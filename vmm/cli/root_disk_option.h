#ifndef CUBE_VMM_CLI_ROOT_DISK_OPTION_H_
#define CUBE_VMM_CLI_ROOT_DISK_OPTION_H_

#include <string>

#include "base/result.h"

namespace cube::vmm {

// A guest's root disk, as `--rootfs NAME|FILE[:WORD]...` names it, with the words of `--disk`.
struct RootDisk {
  std::string disk;             // an option for --disk; the first, so that the guest's name is vda
  std::string kernel_argument;  // by which the agent finds it
};

// Reads the option. What has no '/' is the name of an image, NAME.ext4 in the folder `images`. The
// image is shared: unless it is read-only or has an overlay, it gets a temporary one. An error
// names what is wrong and, for an image that is not there, what builds it.
Result<RootDisk> ParseRootDisk(const std::string& text, const std::string& images);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_ROOT_DISK_OPTION_H_
