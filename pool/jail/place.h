#ifndef CUBE_POOL_JAIL_PLACE_H_
#define CUBE_POOL_JAIL_PLACE_H_

#include <sys/types.h>

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::pool {

// open(2) of an absolute path in which nothing is a symbolic link: for what is in folders that
// jailed processes write.
Result<UniqueFd> OpenNoLinks(const std::string& path, int flags);

// A mount of the folder or file at `path` alone, without links in the path, attached nowhere:
// nothing of what lies above it can be reached by it. No set-user-id programs and no devices in it.
Result<UniqueFd> OpenTree(const std::string& path, bool writable);

// Makes the folders of a path, up to its last slash.
Status MakeFolders(const std::string& path);

// Attaches such a mount at `place`, which is made, and what is missing above it.
Status Attach(int tree, const std::string& place, bool is_folder);

// `path` is seen at the same place below `root`, read-only. Nothing if it can be seen already.
Status ShowBelow(const std::string& root, const std::string& path);

// In a process of one thread that is root of the host: makes `path` visible to `process`, in its
// mount namespace, read-only, and stays in that.
Status ShowTo(pid_t process, const std::string& path);

}  // namespace cube::pool

#endif  // CUBE_POOL_JAIL_PLACE_H_
