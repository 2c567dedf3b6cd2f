#ifndef CUBE_GUESTKERNEL_AGENT_ROOT_OPTION_H_
#define CUBE_GUESTKERNEL_AGENT_ROOT_OPTION_H_

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace cube::agent {

// The root file system the VMM asks for.
struct RootOption {
  std::string device;  // an absolute path in /dev
  bool read_only = false;
};

// Looks in a kernel command line for the word `cube.root=DEVICE[:ro]`; the last one counts. Nothing
// if there is none: the initramfs is the root then. An error names a word that is wrong.
Result<std::optional<RootOption>> ParseRootOption(std::string_view command_line);

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_ROOT_OPTION_H_
