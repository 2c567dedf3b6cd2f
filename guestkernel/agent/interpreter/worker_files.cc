#include "guestkernel/agent/interpreter/worker_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/unique_fd.h"

namespace cube::agent::interpreter {
namespace {

Status MakeFolder(const std::string& path) {
  if (mkdir(path.c_str(), 0755) < 0 && errno != EEXIST) {
    return ErrnoError("cannot make %s", path.c_str());
  }
  return OkStatus();
}

}  // namespace

Status InstallWorkerFiles(const std::string& folder) {
  for (const WorkerFile& file : WorkerFiles()) {
    const std::string path = folder + "/" + std::string(file.path);
    for (size_t slash = path.find('/', 1); slash != std::string::npos;
         slash = path.find('/', slash + 1)) {
      if (slash >= folder.size() || access(folder.c_str(), F_OK) < 0) {
        CUBE_TRY(MakeFolder(path.substr(0, slash)));
      }
    }
    UniqueFd out(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!out.valid()) return ErrnoError("cannot make %s", path.c_str());
    if (write(out.get(), file.content.data(), file.content.size()) !=
        static_cast<ssize_t>(file.content.size())) {
      return ErrnoError("cannot write %s", path.c_str());
    }
  }
  return OkStatus();
}

}  // namespace cube::agent::interpreter
