#ifndef CUBE_VMM_CLI_CUBE_HOME_H_
#define CUBE_VMM_CLI_CUBE_HOME_H_

#include <string>

#include "base/result.h"

namespace cube::vmm {

// The folder of Cube's files: $CUBE_HOME, or /var/lib/cube.
std::string CubeHome();

// The folder of running sandboxes' files.
std::string RunFolder();

// A sandbox's id: so many lower-case hexadecimal digits, so that it is part of a file's name.
inline constexpr size_t kSandboxIdSize = 20;
Status CheckSandboxId(const std::string& id);

// The control socket of the sandbox with that id, and its log.
std::string ControlPath(const std::string& id);
std::string LogPath(const std::string& id);

// Where its host clients find the guest's AF_VSOCK ports, unless told otherwise.
std::string VsockPath(const std::string& id);

// Makes the folder of running sandboxes' files, if it is not there.
Status MakeRunFolder();

// Where files without a name go that a guest may fill: $TMPDIR, or the folder of running sandboxes,
// so that they are of one file system with the templates.
std::string ScratchFolder();

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_CUBE_HOME_H_
