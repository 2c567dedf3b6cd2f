#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_FILES_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_FILES_H_

#include <string>

#include "guestkernel/agent/connect/rpc_error.h"
#include "guestkernel/agent/envd/users.h"

namespace cube::agent::envd {

// What is done to files for clients. Paths are absolute. True stands for success; for
// MakeFolders(), that it has made one.

// Makes a directory and those above it that are missing, owned by the user. One that is there is as
// it should be.
connect::Outcome<bool> MakeFolders(const std::string& path, const User& user);

// Removes what is at `path` and all below it. That nothing is there is success.
connect::Outcome<bool> RemoveTree(const std::string& path);

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_FILES_H_
