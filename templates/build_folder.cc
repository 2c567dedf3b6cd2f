#include "templates/build_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "templates/tree.h"

namespace cube::templates {
namespace {

Status MakeFolder(const std::string& path, mode_t mode) {
  if (mkdir(path.c_str(), mode) < 0 && errno != EEXIST) {
    return ErrnoError("cannot make %s", path.c_str());
  }
  return OkStatus();
}

}  // namespace

Result<BuildFolder> BuildFolder::Open(const std::string& home, const std::string& name) {
  BuildFolder folder;
  folder.top_ = home + "/builds";
  folder.name_ = name;
  folder.work_ = folder.top_ + "/work/" + name;
  std::error_code failed;
  std::filesystem::create_directories(home, failed);
  CUBE_TRY(MakeFolder(folder.top_, 0755));
  for (const char* part : {"/images", "/layers", "/logs", "/locks"}) {
    CUBE_TRY(MakeFolder(folder.top_ + part, 0755));
  }
  // Files of an image that are set-user-ID are nobody's to run here.
  CUBE_TRY(MakeFolder(folder.top_ + "/work", 0700));
  const std::string lock = folder.top_ + "/locks/" + name;
  CUBE_ASSIGN(folder.lock_, OpenFile(lock, O_RDWR | O_CREAT, 0600));
  if (flock(folder.lock_.get(), LOCK_EX | LOCK_NB) < 0) {
    if (errno != EWOULDBLOCK) return ErrnoError("%s", lock.c_str());
    return Errorf("template \"%s\" is being built by another process", name.c_str());
  }
  const std::string all = folder.top_ + "/locks/.all";
  CUBE_ASSIGN(folder.shared_, OpenFile(all, O_RDWR | O_CREAT, 0600));
  if (flock(folder.shared_.get(), LOCK_SH) < 0) return ErrnoError("%s", all.c_str());
  folder.Clean();
  if (mkdir(folder.work_.c_str(), 0700) < 0) return ErrnoError("%s", folder.work_.c_str());
  return folder;
}

void BuildFolder::Clean() const {
  auto parent = OpenFile(top_ + "/work", O_RDONLY | O_DIRECTORY);
  if (parent.ok()) (void)Tree::Remove(parent->get(), name_);
}

Status PublishFile(const std::string& from, const std::string& to) {
  CUBE_ASSIGN(UniqueFd file, OpenFile(from, O_RDONLY));
  if (fchmod(file.get(), 0444) < 0) return ErrnoError("%s", from.c_str());
  if (fsync(file.get()) < 0) return ErrnoError("%s", from.c_str());
  if (link(from.c_str(), to.c_str()) < 0 && errno != EEXIST) {
    return ErrnoError("cannot make %s", to.c_str());
  }
  // The name as well.
  CUBE_ASSIGN(UniqueFd folder,
              OpenFile(std::filesystem::path(to).parent_path(), O_RDONLY | O_DIRECTORY));
  if (fsync(folder.get()) < 0) return ErrnoError("%s", to.c_str());
  unlink(from.c_str());
  return OkStatus();
}

}  // namespace cube::templates
