#ifndef CUBE_API_VOLUME_STORE_H_
#define CUBE_API_VOLUME_STORE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "api/api_database.h"
#include "api/volume_trash.h"
#include "base/unique_fd.h"
#include "pool/outcome.h"

namespace cube::api {

struct VolumeRecord {
  std::string id;
  std::string name;
  int64_t created_ms = 0;
};

// Volumes: folders of files that outlive sandboxes, each with a token that opens it. They belong to
// the user 1000, as their files do in sandboxes (devices/fs). On one thread.
class VolumeStore {
 public:
  static constexpr size_t kMost = 1000;

  // `database` outlives it. `folder`: of volumes alone; what uploads of before have left goes.
  static Result<VolumeStore> Open(pool::Database* database, std::string folder);

  // `name`: a-z, A-Z, 0-9, '-', '_', at most 128, of no other volume.
  pool::Outcome<VolumeRecord> Create(const std::string& name);
  // Null if there is none.
  const VolumeRecord* Find(const std::string& id) const;
  std::vector<VolumeRecord> List() const;
  // By its name, or its id; null if there is none.
  const VolumeRecord* FindNamed(const std::string& name) const;
  // With all its files, which are left to trash().
  pool::Outcome<pool::Done> Delete(const std::string& id);
  // The same as long as there is the volume.
  std::string TokenOf(const std::string& id) const;
  // Its folder, open.
  pool::Outcome<UniqueFd> Root(const std::string& id) const;
  // Where an upload may be until it is whole: a file on the same file system.
  std::string StagingPath(const std::string& upload) const;
  VolumeTrash* trash() { return &trash_; }
  bool IsStaging(const std::string& path) const;

 private:
  VolumeStore(pool::Database* database, std::string folder, std::string secret, VolumeTrash trash)
      : database_(database),
        folder_(std::move(folder)),
        secret_(std::move(secret)),
        trash_(std::move(trash)) {}

  pool::Database* database_;
  std::string folder_;
  std::string secret_;
  VolumeTrash trash_;
  std::map<std::string, VolumeRecord> volumes_;
};

}  // namespace cube::api

#endif  // CUBE_API_VOLUME_STORE_H_
