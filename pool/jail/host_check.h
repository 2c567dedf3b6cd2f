#ifndef CUBE_POOL_JAIL_HOST_CHECK_H_
#define CUBE_POOL_JAIL_HOST_CHECK_H_

#include <sys/types.h>

#include <string>

#include "base/result.h"

namespace cube::pool {

// Whether this process can make jails here: root of the host, and namespaces of each kind. The
// error names what is missing.
Status CheckHost();

// `cube-jail`, which lies beside this program; $CUBE_JAIL names another.
Result<std::string> FindHelper();
// A program by its path, or by its name in $PATH: without links, and executable by everybody.
Result<std::string> FindProgram(const std::string& name);

// The disk that a folder is on, as cgroups name it: the whole, not a partition. 0 if it is on none.
Result<dev_t> DiskOf(const std::string& folder);

}  // namespace cube::pool

#endif  // CUBE_POOL_JAIL_HOST_CHECK_H_
