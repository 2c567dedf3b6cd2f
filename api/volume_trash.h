#ifndef CUBE_API_VOLUME_TRASH_H_
#define CUBE_API_VOLUME_TRASH_H_

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::api {

// Where what is deleted of volumes goes at once, and then away little by little: a sandbox may have
// made as many files as it likes, and folders in one another deeper than anybody can walk. A folder
// of its own on the volumes' file system, in which every folder that is not empty yet lies flat.
class VolumeTrash {
 public:
  // What is there of before is trash, too.
  static Result<VolumeTrash> Open(const std::string& folder);

  // Moves `name` in the folder `parent` here: 0 or an errno value.
  int Take(int parent, const char* name);
  // Deletes at most about `count` files. False once there are none, or none that can be deleted.
  bool Empty(size_t count);

 private:
  explicit VolumeTrash(UniqueFd folder) : folder_(std::move(folder)) {}

  std::string NewName();
  // What is in the folder of that name, as far as `*count` goes. True if the end was reached.
  bool EmptyFolder(const char* name, size_t* count, size_t* done);

  UniqueFd folder_;
  uint64_t next_ = 0;
};

}  // namespace cube::api

#endif  // CUBE_API_VOLUME_TRASH_H_
