#ifndef CUBE_API_VOLUME_FILES_H_
#define CUBE_API_VOLUME_FILES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "api/volume_trash.h"
#include "base/unique_fd.h"
#include "pool/outcome.h"

namespace cube::api {

// A file or folder of a volume, as clients see it.
struct VolumeEntry {
  std::string name;
  std::string path;              // from the volume's root, with a slash before it
  const char* type = "unknown";  // file, directory, symlink, unknown
  uint64_t size = 0;             // bytes
  uint32_t mode = 0;             // permissions: 07777
  uint32_t uid = 0, gid = 0;
  int64_t accessed_ms = 0, modified_ms = 0, changed_ms = 0;
};

// What a client wants a file or folder to have; what is not there stays.
struct VolumeAttributes {
  std::optional<uint32_t> uid, gid, mode;
};

// A client's path within a volume: its names, none of which leads up.
class VolumePath {
 public:
  static constexpr size_t kMaxBytes = 4096, kMaxName = 255, kMaxDepth = 64;

  // kInvalid: too long or deep, "..", a zero byte, not UTF-8.
  static pool::Outcome<VolumePath> Parse(const std::string& text);

  const std::vector<std::string>& names() const { return names_; }
  bool IsRoot() const { return names_.empty(); }
  std::string Text() const;  // "/a/b"

 private:
  std::vector<std::string> names_;
};

// Files beneath an open folder, which sandboxes write as well. Nothing is followed out of it,
// whatever is in it: no links at all. What is made belongs to the folder's owner unless a client
// says another.
class VolumeFiles {
 public:
  static constexpr size_t kMaxListed = 10'000;

  explicit VolumeFiles(UniqueFd root) : root_(std::move(root)) {}

  pool::Outcome<VolumeEntry> Look(const VolumePath& path) const;
  // What is in a folder, and in those in it down to `depth` (1: in it alone), by path.
  pool::Outcome<std::vector<VolumeEntry>> List(const VolumePath& path, int depth) const;
  // `force`: with the folders above it, and if it is there already.
  pool::Outcome<VolumeEntry> MakeFolder(const VolumePath& path, const VolumeAttributes& attributes,
                                        bool force) const;
  pool::Outcome<VolumeEntry> Change(const VolumePath& path,
                                    const VolumeAttributes& attributes) const;
  // A folder with all that is in it, which is left to `trash`; not the root.
  pool::Outcome<pool::Done> Remove(const VolumePath& path, VolumeTrash* trash) const;
  // A regular file, for reading.
  pool::Outcome<UniqueFd> Open(const VolumePath& path) const;
  // Moves the host's file `source` there, in place of a file of before. `force`: makes the folders
  // above it.
  pool::Outcome<VolumeEntry> Place(const std::string& source, const VolumePath& path,
                                   const VolumeAttributes& attributes, bool force) const;

 private:
  pool::Outcome<UniqueFd> At(const std::vector<std::string>& names, int flags) const;
  pool::Outcome<UniqueFd> Parent(const VolumePath& path, bool make) const;
  // With the root's owner where they name none.
  pool::Outcome<VolumeAttributes> Complete(VolumeAttributes attributes) const;

  UniqueFd root_;
};

}  // namespace cube::api

#endif  // CUBE_API_VOLUME_FILES_H_
