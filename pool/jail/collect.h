#ifndef CUBE_POOL_JAIL_COLLECT_H_
#define CUBE_POOL_JAIL_COLLECT_H_

#include <string>

#include "base/result.h"

namespace cube::pool {

// Takes the snapshot that a machine has written into its folder `box` under the name of `path`, and
// puts it at `path`, in the same file system; synced, if it was. The machine may have written
// anything there: it must be a folder with a manifest that builds on nothing but `base`, the
// snapshot that the machine's memory is a mapping of, and on the files of that one's disks, and
// which nobody has open for writing any more.
Status CollectSnapshot(const std::string& box, const std::string& path, const std::string& base);

}  // namespace cube::pool

#endif  // CUBE_POOL_JAIL_COLLECT_H_
