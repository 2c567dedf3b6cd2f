#ifndef CUBE_SNAPSHOT_PUBLISH_H_
#define CUBE_SNAPSHOT_PUBLISH_H_

#include <string>

#include "base/result.h"

namespace cube::snapshot {

// How the names of files and folders begin that are not yet what they are to be. They become it by
// one rename(2), beside where they are.
inline constexpr const char* kUnpublishedPrefix = ".unpublished-";

// The folder that `path` lies in; "." for a bare name.
std::string FolderOf(const std::string& path);

// Puts the names in a folder on the disk.
Status SyncFolder(const std::string& path);

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_PUBLISH_H_
