#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_FOLDER_LISTING_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_FOLDER_LISTING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "guestkernel/agent/connect/rpc_error.h"
#include "guestkernel/agent/envd/users.h"

namespace cube::agent::envd {

// The message filesystem.ListDirResponse of a directory and `depth` levels of those in it, which
// are not followed by links. Each directory comes before what is in it, and names in the order of
// their bytes.
connect::Outcome<std::string> ListFolder(Users* users, const std::string& path, uint32_t depth);

// The names in a directory, in that order.
connect::Outcome<std::vector<std::string>> ReadFolder(const std::string& path);

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_FOLDER_LISTING_H_
