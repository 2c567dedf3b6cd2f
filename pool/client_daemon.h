#ifndef CUBE_POOL_CLIENT_DAEMON_H_
#define CUBE_POOL_CLIENT_DAEMON_H_

#include <string>
#include <vector>

#include "base/result.h"

namespace cube::pool {

// Starts cubed, which is beside this program or in $PATH, with these arguments, as a process of its
// own, and waits until it is ready. What it has to say goes to the file `log`.
Status StartDaemon(const std::vector<std::string>& arguments, const std::string& log);

}  // namespace cube::pool

#endif  // CUBE_POOL_CLIENT_DAEMON_H_
