#ifndef CUBE_API_VOLUME_STORE_H_
#define CUBE_API_VOLUME_STORE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "api/api_database.h"
#include "base/unique_fd.h"
#include "pool/outcome.h"

namespace cube::api {

struct VolumeRecord {
  std::string id;
  std::string name;
  int64_t created_ms = 0;
};

// Volumes: folders of files that outlive sandboxes, each with a token that opens it. On one thread.
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
  // With all its files.
  pool::Outcome<pool::Done> Delete(const std::string& id);
  // The same as long as there is the volume.
  std::string TokenOf(const std::string& id) const;
  // Its folder, open.
  pool::Outcome<UniqueFd> Root(const std::string& id) const;
  // Where an upload may be until it is whole: a file on the same file system.
  std::string StagingPath(const std::string& upload) const;
  bool IsStaging(const std::string& path) const;

 private:
  VolumeStore(pool::Database* database, std::string folder, std::string secret)
      : database_(database), folder_(std::move(folder)), secret_(std::move(secret)) {}

  pool::Database* database_;
  std::string folder_;
  std::string secret_;
  std::map<std::string, VolumeRecord> volumes_;
};

}  // namespace cube::api

#endif  // CUBE_API_VOLUME_STORE_H_
