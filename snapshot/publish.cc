#include "snapshot/publish.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/unique_fd.h"

namespace cube::snapshot {

std::string FolderOf(const std::string& path) {
  size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Status SyncFolder(const std::string& path) {
  CUBE_ASSIGN(UniqueFd folder, OpenFile(path, O_RDONLY | O_DIRECTORY));
  if (fsync(folder.get()) < 0) return ErrnoError("fsync of %s", path.c_str());
  return OkStatus();
}

}  // namespace cube::snapshot
