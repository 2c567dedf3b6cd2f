#ifndef CUBE_SNAPSHOT_VERIFIED_STAMP_H_
#define CUBE_SNAPSHOT_VERIFIED_STAMP_H_

#include <sys/stat.h>

#include <string>

#include "base/result.h"

namespace cube::snapshot {

// Says that a file was held against its checksum, by a file `PATH.verified` with its inode, size
// and times of change. Reading hundreds of megabytes at every clone would cost more than the clone.
// What changes under an unchanged inode, as a failing disk does, it does not find.
bool IsStamped(const std::string& path, const struct stat& info);
Status Stamp(const std::string& path, const struct stat& info);

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_VERIFIED_STAMP_H_
